"""The result of a simulation: totals, regret by cause, and what happened when."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from swarmrt.sim.fluid.regret import CAUSES, Cause

What = Literal["switch", "download", "standby", "loaded", "join", "leave", "lost"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Rates and replicas from one time on."""

    at_s: float
    rate: float
    oracle: float
    replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Act:
    """An act: a thing that a peer did, or that happened to it."""

    at_s: float
    what: What
    peer: str
    stage: int | None = None
    why: str = ""


@dataclass(slots=True)
class Result:
    """A simulation's totals. Rates are microbatches a second."""

    policy: str
    seed: int
    stages: int
    duration_s: float = 0.0
    peers_joined: int = 0
    microbatches: float = 0.0
    oracle_microbatches: float = 0.0
    free_oracle_microbatches: float = 0.0
    switches: int = 0
    downloads: int = 0
    first_downloads: int = 0
    standby_downloads: int = 0
    lost_states: int = 0
    serving_lost_s: float = 0.0  # peers' seconds in which a download kept them from serving
    regret: dict[Cause, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    samples: list[Sample] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    landed: list[tuple[float, float]] = field(default_factory=list)  # from when, at which rate
    fidelity: str = "fluid"

    def row(self) -> dict[str, Any]:
        """Return one flat row, for a table or a data frame."""
        oracle = self.oracle_microbatches
        row: dict[str, Any] = {
            "fidelity": self.fidelity,
            "policy": self.policy,
            "seed": self.seed,
            "stages": self.stages,
            "duration_s": self.duration_s,
            "peers_joined": self.peers_joined,
            "throughput": _share(self.microbatches, self.duration_s),
            "throughput_over_oracle": _share(self.microbatches, oracle),
            "throughput_over_free_oracle": _share(self.microbatches, self.free_oracle_microbatches),
            "switches": self.switches,
            "downloads": self.downloads,
            "standby_downloads": self.standby_downloads,
            "extra_downloads_per_peer": _share(
                self.downloads - self.first_downloads, self.peers_joined
            ),
            "lost_states": self.lost_states,
            "serving_lost_s": self.serving_lost_s,
        }
        row |= {f"regret_{cause}": _share(lost, oracle) for cause, lost in self.regret.items()}
        return row

    def to_json(self) -> str:
        """Return one object: the row, with regret as an object of shares of oracle b."""
        row = self.row()
        regret = {cause: row.pop(f"regret_{cause}") for cause in self.regret}
        return json.dumps(row | {"regret": regret})


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
