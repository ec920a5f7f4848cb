"""Newcomers behind a home link: who gets in, who is told why not, and what the others notice.

Everything runs in network namespaces on this machine; the link alone is narrow, and computing is
emulated. What counts is read from logs: their clock is the machine's monotonic one.
"""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.lab.bench.emulation import MODEL, Speed
from swarmrt.lab.homes.namespaces import Internet, why_not_here
from swarmrt.lab.homes.swarm import HomeSwarm
from swarmrt.log_files import json_lines
from swarmrt.messages import Accumulated, Beacon
from swarmrt.observe.log import read_records, received, what_happened
from swarmrt.scheduler.events import Started
from swarmrt.scheduler.instructions import ReportLeftOut
from swarmrt.scheduler.recording import Header

NEEDED = ("ip", "tc", "nsenter")
BEFORE = 4  # commits, before somebody comes
SECOND = 2  # the commit, counted since its process is up, in which a newcomer takes part
WATCHED = 4  # commits since it is up, before it is given up
MORE = 2  # commits after the first with it: links that rounds wait for twice are left out
SENTENCE = "the run goes on without this peer"  # is how it begins
TOLD_S = 30.0  # until a newcomer whose link cannot carry it knows that
WATCHED_S = 60.0  # that the others are watched then
START_S = 180.0  # for the first commits; a commit takes as long at the most
LEAST_SHARE = 0.5  # of an equal one: microbatches are few
WAYS = 2  # a gradient goes to its owners in slices, and comes back in sums

CONFIG = """
[run]
name = "bench-join"
seed = 11
steps = 100000
[model]
{model}
sequence = 64
[stages]
layers = [6, 1]
[batch]
microbatch = 1
microbatches = {microbatches}
[evaluation]
every_steps = 0
[checkpoint]
every_steps = 0
"""
DECODER = "layers = 7\nwidth = 160\nheads = 8\nkv_heads = 8"
EMBEDDING = f"""kind = "{MODEL}"
layers = 7
width = 512
vocab = 256
options = {{layers = 7, width = 512, vocab = 256, more_rows = 37000}}"""


@dataclass(frozen=True)
class Case:
    """A stage that somebody joins."""

    model: str
    microbatches: int  # a step for each replica that it has before
    speeds: tuple[Speed, Speed]  # by stage; the first is joined, and the bottleneck
    gets_in: bool


CASES = {
    "can": Case(DECODER, 8, (Speed(0.8, 1.6), Speed(0.02, 0.04)), True),
    "cannot": Case(EMBEDDING, 4, (Speed(0.12, 0.24), Speed(0.005, 0.01)), False),
}


@dataclass(frozen=True)
class Joined:
    """A newcomer, and what the others noticed. Seconds are since its process was up, where
    nothing else is said."""

    up_s: float  # since its start: imports, the directory, building the stage
    in_at_commit: int | None  # the first since then in which it took part
    share: float | None  # of the microbatches of the step after, that it served
    told_s: float | None
    told: str | None  # the first sentence
    gradient_bytes: int
    median_gap_s: float  # between two commits before it was up
    longest_gap_s: float  # since it was started
    bound_s: float
    passed: bool


def check_here(bandwidth: str) -> None:
    """Find out whether this machine lets us make such a link. Raises RunError."""
    reason = why_not_here(
        NEEDED, lambda internet: internet.narrow(internet.host("try", 1), bandwidth)
    )
    if reason:
        raise RunError(f"bench join --bandwidth: {reason}")


def measure(
    case: Case, replicas: int, bandwidth: str, bytes_per_s: float, phase: float, folder: Path
) -> Joined:
    """Let somebody come by a link of that bandwidth, at that phase of a step (0 to 1). Raises
    RunError."""
    folder.mkdir(parents=True, exist_ok=True)
    run = CONFIG.format(model=case.model, microbatches=case.microbatches * replicas)
    with Internet() as internet, HomeSwarm(folder, run, leave_s=0.0) as swarm:
        others, home = internet.host("others", 1), internet.host("home", 2)
        internet.narrow(home, bandwidth)
        swarm.train(others, "--replicas", f"{replicas},1")
        allow = ("--threads", 1, "--memory", "none", "--allow-model", MODEL)
        first, second = ((*allow, "--emulate", speed) for speed in case.speeds)
        for number in range(replicas):
            swarm.serve(others, 0, *first, name=f"first-{number}")
        swarm.serve(others, 1, *second, name="second")
        swarm.wait(lambda: swarm.version >= BEFORE, f"step {BEFORE}", START_S)
        time.sleep(phase * statistics.median(_gaps(_commits(swarm))[1:]))
        started_at = time.monotonic()
        swarm.serve(home, 0, *first, name="newcomer")
        log = swarm.log_of("newcomer")
        swarm.wait(lambda: _up_at(log) is not None, "the newcomer to be up")
        up_at = _up_at(log)
        assert up_at is not None
        watch = _Watch(swarm, case, up_at)
        swarm.wait(watch.is_over, "the newcomer to be in or told", WATCHED * START_S)
        ended_at = time.monotonic()
    return _result(swarm, case, replicas, bytes_per_s, started_at, up_at, ended_at)


class _Watch:
    """Tells when enough has been seen."""

    def __init__(self, swarm: HomeSwarm, case: Case, up_at: float) -> None:
        self._swarm, self._case, self._up_at = swarm, case, up_at

    def is_over(self) -> bool:
        if not self._case.gets_in:
            return time.monotonic() > self._up_at + WATCHED_S
        since = [commit for commit in _commits(self._swarm) if commit.at > self._up_at]
        newcomer = _newcomer(self._swarm)
        number = _first_in(since, newcomer)
        return len(since) >= (WATCHED if number is None else number + MORE)


@dataclass(frozen=True)
class _Commit:
    version: int
    at: float  # monotonic
    members: tuple[PeerId, ...]  # of the stage that is joined


def _commits(swarm: HomeSwarm) -> list[_Commit]:
    metrics = swarm.run_dir / "metrics.jsonl"
    if not metrics.exists():
        return []
    found = [entry for entry in json_lines(metrics) if "digests" in entry]
    ahead_s = time.time() - time.monotonic()
    return [
        _Commit(line["version"], line["time"] - ahead_s, tuple(map(PeerId, line["digests"][0])))
        for line in found
    ]


def _gaps(commits: list[_Commit]) -> list[float]:
    return [later.at - earlier.at for earlier, later in itertools.pairwise(commits)]


def _up_at(log: Path) -> float | None:
    return next((r.now for r in what_happened(log) if isinstance(r.event, Started)), None)


def _newcomer(swarm: HomeSwarm) -> PeerId:
    """Return the newcomer's id, which its settings name."""
    header = next(read_records(swarm.log_of("newcomer")))
    assert isinstance(header, Header)
    return header.settings.me


def _result(
    swarm: HomeSwarm,
    case: Case,
    replicas: int,
    bytes_per_s: float,
    started_at: float,
    up_at: float,
    ended_at: float,
) -> Joined:
    newcomer, commits = _newcomer(swarm), _commits(swarm)
    since = [commit for commit in commits if commit.at > up_at]
    number = _first_in(since, newcomer)
    share = None
    if number is not None and number < len(since):
        share = _share(swarm, newcomer, since[number].version - 1)
    told_at, told = _told(swarm)
    gradient_bytes = _gradient_bytes(swarm, newcomer)
    known = [commit for commit in commits[1:] if commit.at <= up_at]
    median_s = statistics.median(_gaps(known))
    noticed = [c for c in commits if c.at > started_at]
    last_before = max(c.at for c in commits if c.at <= started_at)
    times = [last_before, *(c.at for c in noticed), ended_at]
    longest_s = max(later - earlier for earlier, later in itertools.pairwise(times))
    round_s = WAYS * gradient_bytes * replicas / (replicas + 1) / bytes_per_s
    bound_s = 2 * median_s + round_s
    if case.gets_in:
        serves = share is not None and share * (replicas + 1) >= LEAST_SHARE
        stays = newcomer in commits[-1].members
        was_right = number is not None and number <= SECOND and serves and stays
    else:
        was_right = told_at is not None and told_at - up_at <= TOLD_S
    return Joined(
        up_s=up_at - started_at,
        in_at_commit=number,
        share=share,
        told_s=None if told_at is None else told_at - up_at,
        told=told,
        gradient_bytes=gradient_bytes,
        median_gap_s=median_s,
        longest_gap_s=longest_s,
        bound_s=bound_s,
        passed=was_right and longest_s <= bound_s,
    )


def _first_in(since: list[_Commit], peer: PeerId) -> int | None:
    """Return the number of the first commit, from one, in which it took part."""
    return next((n for n, commit in enumerate(since, 1) if peer in commit.members), None)


def _share(swarm: HomeSwarm, newcomer: PeerId, step: int) -> float:
    """Return the share of a step's microbatches that it has accumulated, by the trainer's log."""
    owners = {
        receipt.microbatch.index: sender
        for _, sender, receipt in received(swarm.run_dir / "trainer" / "events.jsonl", Accumulated)
        if receipt.microbatch.step == step and receipt.stage == 0
    }
    return list(owners.values()).count(newcomer) / len(owners)


def _gradient_bytes(swarm: HomeSwarm, newcomer: PeerId) -> int:
    beacons = received(swarm.run_dir / "trainer" / "events.jsonl", Beacon)
    said = (beacon.gradient_bytes for _, sender, beacon in beacons if sender == newcomer)
    return next(filter(None, said))


def _told(swarm: HomeSwarm) -> tuple[float | None, str | None]:
    """Return when the newcomer's owner was told that it is left out, and in which words."""
    for record in what_happened(swarm.log_of("newcomer")):
        if any(isinstance(instruction, ReportLeftOut) for instruction in record.instructions):
            said = swarm.said("newcomer")
            return record.now, said[said.index(SENTENCE) :].splitlines()[0]
    return None, None
