"""A plan: what a rebalancing decision says is to be done, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Switch:
    """Serve another stage, whose state the peer holds."""

    peer: str
    from_stage: int | None
    to_stage: int
    why: str


@dataclass(frozen=True, slots=True)
class Download:
    """Load a stage's state, and keep it current from then on.

    Who serves a stage goes on serving it meanwhile, unless `stops_serving`. What has come is
    served at once with `serves_when_loaded`; otherwise the next decision may switch to it.
    """

    peer: str
    stage: int
    why: str
    serves_when_loaded: bool = False
    is_standby: bool = False
    stops_serving: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget a state that is not served."""

    peer: str
    stage: int
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A set of decisions that belong together: first drops, then switches, then downloads."""

    drops: tuple[Drop, ...] = ()
    switches: tuple[Switch, ...] = ()
    downloads: tuple[Download, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.drops or self.switches or self.downloads)

    def lines(self) -> list[str]:
        """Return one line a decision, for people."""
        said = [f"{d.peer} forgets stage {d.stage}: {d.why}" for d in self.drops]
        said += [f"{s.peer} serves stage {s.to_stage}: {s.why}" for s in self.switches]
        said += [f"{d.peer} loads stage {d.stage}: {d.why}" for d in self.downloads]
        return said
