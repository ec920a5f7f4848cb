"""The scenario that is like a run: its stages, each of its peers with its speed, who came and went
when."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from swarmrt.errors import UsageError
from swarmrt.ids import SeatId, peer_of, stage_of
from swarmrt.lab.likeness.measured import Measured, Stay
from swarmrt.sim.fluid.scenario import MBIT, MESSAGES, Scenario
from swarmrt.sim.fluid.scene import Scene
from swarmrt.sim.fluid.trace import Change, write_trace

NAME_CHARS = 8  # of a peer's identity
LEAST_S = 0.001  # that a computation or a download takes, as scenarios have it
LEAST_BYTES = 1e-9  # of a message, the same
LINK_MBPS = 1000.0  # of whom it is not known: nobody has seen it load a state


@dataclass(frozen=True)
class Likeness:
    """The scenario, and its churn."""

    scenario: Scenario
    changes: tuple[Change, ...]

    def scene(self, end_s: float, seed: int = 0) -> Scene:
        """Return the scene up to this time."""
        return self.scenario.scene_of(self.changes, end_s, seed)

    def served(self, begins_at: float, ends_at: float) -> Iterator[tuple[int, float, float]]:
        """Yield for each stay between the two: of whom its stage, the seconds of a microbatch, and
        how long it was there."""
        seats = {name: peers for peers in self.scenario.peers for name in peers.names}
        came_at: dict[str, float] = {}
        for change in (*self.changes, *(Change(ends_at, False, name) for name in seats)):
            if change.joins:
                came_at[change.name] = change.at_s
            elif change.name in came_at:
                present_s = min(change.at_s, ends_at) - max(came_at.pop(change.name), begins_at)
                stage = (seats[change.name].only_stages or (0,))[0]
                speed = float(str(seats[change.name].speed))
                compute_s = self.scenario.stages[stage].compute_s
                yield stage, compute_s / speed, max(0.0, present_s)

    def write(self, path: Path) -> None:
        """Write it for `swarmrt simulate`, with its churn beside it. Raises UsageError."""
        trace = path.with_suffix(".csv")
        if trace == path:
            raise UsageError(f"{path}: is where its churn goes; name the scenario like.toml or so")
        values = self.scenario.model_dump(exclude_defaults=True)
        values["churn"] = {"kind": "trace", "file": trace.name}
        try:
            path.write_text(tomli_w.dumps(values), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
        write_trace(self.changes, trace)


def likeness_of(run: Measured) -> Likeness:
    """Return what is like the run. Raises UsageError for one that no scenario can be like."""
    names = _names(run)
    stays = sorted(run.stays, key=lambda stay: stay.joined_at)
    computes = _computes(run)
    loads_s = {stay.seat: _load_s(run, stay) for stay in stays if _loads(stay)}
    mean_load_s = statistics.fmean(loads_s.values()) if loads_s else LEAST_S
    states = [size or LINK_MBPS * MBIT * mean_load_s for size in run.state_bytes]
    message_bytes = run.message_bytes
    peers = []
    for seat, name in names.items():
        stage, speed = stage_of(seat), computes[stage_of(seat)] / run.service_s[seat]
        link_mbps = LINK_MBPS
        if seat in loads_s:
            link_mbps = states[stage] / max(LEAST_S, loads_s[seat]) / MBIT
            # It has computed at this speed while frames came, so they were no limit.
            carried_bytes = link_mbps * MBIT / MESSAGES * min(computes) / speed
            message_bytes = min(message_bytes, carried_bytes)
        peers.append(
            {
                "names": (name,),
                "speed": speed,
                "downlink_mbps": link_mbps,
                "uplink_mbps": LINK_MBPS,
                "only_stages": (stage,),
                "may_move": False,
            }
        )
    values = {
        "world": {
            "hours": run.ends_at / 3600,
            "detect_s": _detect_s(run),
            "decide_s": 0.0,
            "step_microbatches": float(run.config.batch.microbatches),
            "noise": run.noise,
            "latency_s": run.way_s,
            "staleness": int(run.config.overlap > 0),
            "reduce_s": run.reduce_s,
        },
        "stages": [
            {
                "compute_s": compute,
                "state_bytes": max(1.0, states[stage]),
                "gradient_bytes": run.gradient_bytes[stage] or None,
                "message_bytes": max(LEAST_BYTES, message_bytes),
            }
            for stage, compute in enumerate(computes)
        ],
        "peers": peers,
        "churn": {"kind": "none"},
    }
    return Likeness(Scenario.model_validate(values), tuple(_changes(run, stays, names)))


def _names(run: Measured) -> dict[SeatId, str]:
    """Return a short name for each seat. Raises UsageError where one process has two of them at a
    time, as they share what they compute on."""
    for stay in run.stays:
        for other in run.stays:
            is_beside = peer_of(stay.seat) == peer_of(other.seat) and stay.seat != other.seat
            if is_beside and stay.joined_at <= other.joined_at < min(stay.missed_at, run.ends_at):
                raise UsageError(
                    f"peer {peer_of(stay.seat)[:NAME_CHARS]}… serves two stages at a time; no "
                    "scenario can be like that yet"
                )
    return {
        stay.seat: f"{stage_of(stay.seat)}-{peer_of(stay.seat)[-NAME_CHARS:]}" for stay in run.stays
    }


def _computes(run: Measured) -> list[float]:
    """Return what a microbatch takes the mean peer of each stage: that one has a speed of 1."""
    found = []
    for stage in range(run.config.num_stages):
        own = [s for seat, s in run.service_s.items() if stage_of(seat) == stage]
        if not own:
            raise UsageError(f"nobody has computed anything at stage {stage}")
        found.append(max(LEAST_S, statistics.fmean(own)))
    return found


def _loads(stay: Stay) -> bool:
    """Return whether it came when the run was going on, so that it had a state to load."""
    return 0.0 < stay.joined_at < stay.ready_at < stay.missed_at


def _load_s(run: Measured, stay: Stay) -> float:
    """Return how long a newcomer loaded before it waited for a commit, which lets it in: until it
    may have missed the commit before. In the simulator it waits for one by itself."""
    at = [stay.joined_at, *(at for _, at in run.commits if at > stay.joined_at)]
    nearest = min(range(1, len(at)), key=lambda index: abs(at[index] - stay.ready_at))
    return (at[nearest - 1] + at[nearest]) / 2 - stay.joined_at


def _detect_s(run: Measured) -> float:
    """Return how long it took in the mean until somebody's end was known."""
    seconds = [
        max(0.0, stay.missed_at - _end_of(run, stay)) for stay in run.stays if _ends(run, stay)
    ]
    return statistics.fmean(seconds) if seconds else 0.0


def _ends(run: Measured, stay: Stay) -> bool:
    return stay.missed_at < run.ends_at


def _end_of(run: Measured, stay: Stay) -> float:
    """Return when it has ended: by its own log, if this was its last stay, or when it was heard for
    the last time."""
    ended_at = run.ended_at.get(stay.seat, stay.heard_at)
    return ended_at if stay.heard_at <= ended_at <= stay.missed_at else stay.heard_at


def _changes(run: Measured, stays: Sequence[Stay], names: dict[SeatId, str]) -> list[Change]:
    changes = []
    for stay in stays:
        joined_at = max(0.0, stay.joined_at)
        ended_at = _end_of(run, stay) if _ends(run, stay) else math.inf
        if stay.ready_at > run.ends_at or ended_at <= joined_at:
            continue
        changes.append(Change(joined_at, True, names[stay.seat]))
        if ended_at < math.inf:
            changes.append(Change(ended_at, False, names[stay.seat]))
    return sorted(changes)
