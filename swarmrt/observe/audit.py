"""The auditor: reads what every process recorded, and checks that the promises were kept.

It believes no process about itself. What a peer accumulated is counted from its own computations;
what was reduced, from the trainer's rosters; and the two must agree for every (microbatch, stage)
of every committed step, exactly once (P1). Replicas that applied the same round must hold the same
weights (P2).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swarmrt.errors import UsageError
from swarmrt.log_files import is_whole, read_lines
from swarmrt.log_writer import LOST

Plain = dict[str, Any]
Microbatch = tuple[int, int]  # step, index
MAX_STORY = 40  # lines of a microbatch's history


@dataclass
class Audit:
    """The result of auditing a run. `violations` are sentences; each is followed by the history."""

    steps: int = 0
    microbatches: int = 0  # in committed steps
    violations: list[str] = field(default_factory=list)
    digest_mismatches: int = 0
    unchecked: int = 0  # contributions of peers whose logs are not here
    faults: dict[str, int] = field(default_factory=dict)  # by kind, as the lab made them
    recovered: int = 0
    reattempted: int = 0
    fenced: int = 0
    released: int = 0
    void_rounds: int = 0
    rollbacks: int = 0
    epochs: int = 0
    lost_time_s: float = 0.0  # of computing, whose results were not used
    goodput: float = 1.0  # useful over all computing
    longest_gap_s: float = 0.0  # between two commits

    @property
    def passed(self) -> bool:
        return not self.violations and not self.digest_mismatches

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def _unchecked_line(self) -> list[str]:
        if not self.unchecked:
            return []
        return [
            f"NOT CHECKED: {self.unchecked} contributions by peers whose events.jsonl is not under "
            "peers/; their rosters were checked, their own word was not"
        ]

    def lines(self) -> list[str]:
        """Return the result in lines for people."""
        verdict = "every gradient counted exactly once" if self.passed else "VIOLATIONS"
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        return [
            f"{self.steps} steps, {self.microbatches} microbatches: {verdict}; "
            f"{self.digest_mismatches} digest mismatches",
            *self._unchecked_line(),
            f"faults: {kinds or 'none on record'}",
            f"fenced {self.fenced}, recovered {self.recovered}, reattempted {self.reattempted}, "
            f"released {self.released}, void rounds {self.void_rounds}, "
            f"rollbacks {self.rollbacks}, epochs {self.epochs}",
            f"goodput {self.goodput:.3f}, {self.lost_time_s:.1f} s of computing lost; "
            f"longest gap between commits {self.longest_gap_s:.1f} s",
            *self.violations,
        ]


def audit(run_dir: Path) -> Audit:
    """Check a run's folder. Raises UsageError when it has not the whole of a trainer's log."""
    log = run_dir / "trainer" / "events.jsonl"
    if not log.is_file():
        raise UsageError(f"{log}: no such file; is {run_dir} a run folder?")
    if not is_whole(log):
        raise UsageError(
            f"{log}: its beginning was let go, to leave room on the disk; what came of gradients "
            "cannot be followed"
        )
    trainer = _Trainer()
    for entry in read_log(log):
        trainer.add(entry)
    peers = {}
    for path in filter(is_whole, sorted(run_dir.glob("peers/*/events.jsonl"))):
        peer = _Peer()
        try:
            for entry in read_log(path):
                peer.add(entry)
        except Gap:
            continue
        if peer.me:
            peers[peer.me] = peer
    result = Audit(faults=_faults(run_dir))
    _check_steps(result, trainer, peers)
    _check_digests(result, trainer, peers)
    _count(result, trainer, peers)
    for violation in [v for v in result.violations if "microbatch" in v][:3]:
        result.violations += _story(run_dir, _named(violation))
    return result


class Gap(UsageError):
    """A log of which something is missing."""


def read_log(path: Path) -> Iterator[Plain]:
    """Yield a log's records in order. A line that a kill has torn is left out.

    Raises Gap where some were lost for want of room.
    """
    for line in read_lines(path):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            if entry.keys() == {LOST}:
                raise Gap(
                    f"{path}: {entry[LOST]} bytes of it were lost while its disk was full; what "
                    "came of gradients cannot be followed"
                )
            yield entry


@dataclass
class _Commit:
    """A version as the trainer announced it."""

    round: int
    rosters: dict[int, list[tuple[str, list[int]]]]  # by stage
    skipped: bool = False  # nothing was to be in it


class _Trainer:
    """The decisions of the trainer, over all its incarnations."""

    def __init__(self) -> None:
        self.microbatches = 0
        self.stages = 0
        self.epochs: set[int] = set()
        self.commits: dict[int, _Commit] = {}  # version → how it was made, in the last timeline
        self.digests_differ = 0
        self.unlike: list[tuple[int, str, int]] = []  # stage, peer, and in which version it showed
        self.counts: Counter[str] = Counter()
        self.longest_gap_s = 0.0
        self._prepared: dict[int, dict[int, list[tuple[str, list[int]]]]] = {}
        self._skips: set[int] = set()  # rounds that combine nothing
        self._resuming = False

    def add(self, entry: Plain) -> None:
        if "settings" in entry:
            self._incarnation(entry["settings"])
            return
        stages = self._stages
        for instruction in entry["instructions"]:
            match instruction:
                case {"is": "Send", "to": to, "message": {"is": "Prepare"} as message}:
                    roster = [(peer, indices) for peer, indices in message["roster"]]
                    stage = stages.get(to)
                    if message.get("skip"):
                        self._skips.add(message["round"])
                    if stage is not None and any(peer == to for peer, _ in roster):
                        self._prepared.setdefault(message["round"], {})[stage] = roster
                case {"is": "Send", "message": {"is": "Admit", "version": version}}:
                    self._goes_on(version)
                case {"is": "Send", "message": {"is": "Apply"} as message}:
                    version = message["step"] + 1
                    if message["round"] in self._prepared:
                        rosters = self._prepared[message["round"]]
                        known = self.commits.get(version)
                        if known is None or known.round != message["round"]:
                            skipped = message["round"] in self._skips
                            self.commits[version] = _Commit(message["round"], rosters, skipped)
                case {"is": "ReportPeer", "peer": peer, "stage": stage}:
                    stages[peer] = stage
                case {"is": "ReportStep", "version": version, "digests_equal": equal}:
                    self._step(equal, entry["now"])
                case {"is": "ReportUnlike", "stage": stage, "peer": peer}:
                    self.unlike.append((stage, peer, max(self.commits, default=0)))
                case {"is": "ReportRollback", "version": version}:
                    self.counts["rollbacks"] += 1
                    self._back_to(version)
                case {"is": "ReportRecovery", "what": "fenced"}:
                    self.counts["fenced"] += 1
                case {"is": "ReportRecovery", "what": what, "count": count}:
                    self.counts[what] += count
                case {"is": "RaiseEpoch", "epoch": epoch}:
                    self.epochs.add(epoch)

    def was_unlike(self, peer: str, stage: int, version: int) -> bool:
        """Return whether what a peer made of a version was known not to count: it rounds
        differently, or it followed a stage in which that was about to be found out."""
        commit = self.commits.get(version)
        roster = dict(commit.rosters.get(stage, ())) if commit is not None else {}
        return any(
            stage == its_stage and version <= until and (peer == named or peer not in roster)
            for its_stage, named, until in self.unlike
        )

    def _incarnation(self, settings: Plain) -> None:
        self.microbatches = settings["microbatches"]
        self.stages = len(settings["needed"])
        self.epochs.add(settings["epoch"])
        self._stages: dict[str, int] = {}
        self._last_commit_at: float | None = None
        self._resuming = settings["resume"]
        if not self._resuming:
            self.commits.clear()

    def _goes_on(self, version: int) -> None:
        """The first admission of a resumed run tells where: what is later has to be done again."""
        if self._resuming:
            self._back_to(version)
        self._resuming = False

    def _back_to(self, version: int) -> None:
        self.commits = {v: commit for v, commit in self.commits.items() if v <= version}

    def _step(self, equal: bool, now: float) -> None:
        self.digests_differ += not equal
        if self._last_commit_at is not None:
            self.longest_gap_s = max(self.longest_gap_s, now - self._last_commit_at)
        self._last_commit_at = now


class _Peer:
    """The computations of one peer, and what it gave to each round."""

    def __init__(self) -> None:
        self.me = ""
        self.stage = -1
        self.given: dict[int, Counter[Microbatch]] = {}  # round → what was in the accumulator
        self.made: dict[tuple[int, int], str] = {}  # (version, round) → digest of the parameters
        self.seconds: dict[tuple[str, Microbatch], list[float]] = defaultdict(list)
        self.all_seconds = 0.0
        self.evaluation_seconds: dict[Microbatch, float] = {}  # of held-out ones
        self._accumulator: Counter[Microbatch] = Counter()
        self._accumulating: set[Microbatch] = set()  # that a started computation is to add
        self._stepping: int | None = None

    def add(self, entry: Plain) -> None:
        if "settings" in entry:
            self.me, self.stage = entry["settings"]["me"], entry["settings"]["stage"]
            return
        self._happened(entry["event"])
        for instruction in entry["instructions"]:
            self._told(instruction)

    def _happened(self, event: Plain) -> None:
        match event:
            case {"is": "ForwardDone", "microbatch": mb, "seconds": seconds}:
                self._computed("forward", mb, seconds)
            case {"is": "BackwardDone", "microbatch": mb, "seconds": seconds}:
                self._computed("backward", mb, seconds)
                self._added(mb)
            case {"is": "WeightGradientsDone", "microbatch": mb, "seconds": seconds}:
                self._computed("weights", mb, seconds)
                self._added(mb)
            case {"is": "ComputeFailed", "microbatch": mb}:
                self._accumulating.discard((mb[0], mb[1]))
            case {"is": "Stepped", "version": version, "digest": digest}:
                if self._stepping is not None:
                    self.made[version, self._stepping] = digest
                self._stepping = None
                self._accumulator = Counter(
                    {mb: times for mb, times in self._accumulator.items() if mb[0] >= version}
                )
            case {"is": "StateLoaded"}:
                self._accumulator.clear()

    def _told(self, instruction: Plain) -> None:
        match instruction:
            case {"is": "RunBackward", "microbatch": mb, "accumulate": accumulate}:
                if accumulate and not instruction.get("later"):  # else in the accumulator in part
                    self._accumulating.add((mb[0], mb[1]))
            case {"is": "RunWeightGradients", "microbatch": mb}:
                self._accumulating.add((mb[0], mb[1]))
            case {"is": "ClearGradients"}:
                self._accumulator.clear()
            case {"is": "Send", "message": {"is": "Part", "summed": False} as part}:
                self._gives(part["step"], part["round"])
            case {"is": "SumPart", "step": step, "round": number}:
                self._gives(step, number)
            case {"is": "StepOptimizer", "round": number}:
                self._stepping = number

    def _added(self, mb: list[Any]) -> None:
        """The whole gradient, if this is what adds it."""
        if (mb[0], mb[1]) in self._accumulating:
            self._accumulator[mb[0], mb[1]] += 1
            self._accumulating.remove((mb[0], mb[1]))

    def _gives(self, step: int, number: int) -> None:
        """Give what the peer has of the step into the round."""
        its = {mb: times for mb, times in self._accumulator.items() if mb[0] == step}
        self.given.setdefault(number, Counter(its))

    def _computed(self, what: str, mb: list[Any], seconds: float) -> None:
        self.all_seconds += seconds
        if mb[2]:
            self.evaluation_seconds[mb[0], mb[1]] = seconds
        else:
            self.seconds[what, (mb[0], mb[1])].append(seconds)


def _check_steps(result: Audit, trainer: _Trainer, peers: dict[str, _Peer]) -> None:
    """Promise P1, for every (microbatch, stage) of every version."""
    newest = max(trainer.commits, default=0)
    result.steps = newest
    for version in range(1, newest + 1):
        commit = trainer.commits.get(version)
        if commit is None:
            result.violations.append(f"version {version} was never announced")
            continue
        if commit.skipped:
            continue
        result.microbatches += trainer.microbatches
        for stage in range(trainer.stages):
            roster = commit.rosters.get(stage, [])
            result.violations += _roster_faults(version - 1, stage, roster, trainer.microbatches)
            for peer, indices in roster:
                if peer not in peers:
                    result.unchecked += 1
                else:
                    given = peers[peer].given.get(commit.round)
                    result.violations += _contribution_faults(
                        version - 1, stage, peer, indices, given
                    )


def _roster_faults(
    step: int, stage: int, roster: list[tuple[str, list[int]]], microbatches: int
) -> Iterator[str]:
    listed = Counter(index for _, indices in roster for index in indices)
    for index in range(microbatches):
        if listed[index] != 1:
            yield f"microbatch {step}.{index} entered stage {stage} {listed[index]} times"


def _contribution_faults(
    step: int, stage: int, peer: str, indices: list[int], given: Counter[Microbatch] | None
) -> Iterator[str]:
    """The roster's word against the peer's own computations."""
    expected = Counter({(step, index): 1 for index in indices})
    if given is None:
        if expected:
            yield f"{peer} of stage {stage} never gave what it had of step {step + 1}"
        return
    for mb in sorted(expected.keys() | given.keys()):
        if expected[mb] != given[mb]:
            yield (
                f"microbatch {mb[0]}.{mb[1]}: {peer} of stage {stage} had it {given[mb]} times in "
                f"its accumulator, its roster entry says {expected[mb]}"
            )


def _check_digests(result: Audit, trainer: _Trainer, peers: dict[str, _Peer]) -> None:
    """Promise P2: who applied the same round to the same version holds the same bits."""
    made: dict[tuple[int, int, int], set[str]] = defaultdict(set)
    for name, peer in peers.items():
        for (version, number), digest in peer.made.items():
            if not trainer.was_unlike(name, peer.stage, version):
                made[peer.stage, version, number].add(digest)
    result.digest_mismatches = trainer.digests_differ
    result.digest_mismatches += sum(len(digests) > 1 for digests in made.values())


def _count(result: Audit, trainer: _Trainer, peers: dict[str, _Peer]) -> None:
    counts = trainer.counts
    result.recovered, result.reattempted = counts["recovered"], counts["reattempted"]
    result.fenced, result.released = counts["fenced"], counts["released"]
    result.void_rounds, result.rollbacks = counts["void round"], counts["rollbacks"]
    result.epochs = len(trainer.epochs)
    result.longest_gap_s = trainer.longest_gap_s
    total = sum(peer.all_seconds for peer in peers.values())
    useful = _useful_seconds(trainer, peers)
    result.lost_time_s = max(0.0, total - useful)
    result.goodput = useful / total if total else 1.0


def _useful_seconds(trainer: _Trainer, peers: dict[str, _Peer]) -> float:
    """Count one forward and one backward of each (microbatch, stage) by its owner; and
    evaluations."""
    useful = sum(sum(peer.evaluation_seconds.values()) for peer in peers.values())
    for version, commit in trainer.commits.items():
        for roster in commit.rosters.values():
            for name, indices in roster:
                peer = peers.get(name)
                for index in indices if peer is not None else ():
                    assert peer is not None
                    for what in ("forward", "backward", "weights"):
                        seconds = peer.seconds.get((what, (version - 1, index)))
                        useful += seconds[-1] if seconds else 0.0
    return useful


def _faults(run_dir: Path) -> dict[str, int]:
    """Return what the lab did to the run, as it wrote it down."""
    path = run_dir / "faults.jsonl"
    if not path.is_file():
        return {}
    return dict(Counter(str(entry.get("kind")) for entry in read_log(path)))


def _named(violation: str) -> str:
    return violation.split("microbatch ")[1].split()[0].rstrip(":")


def _story(run_dir: Path, name: str) -> list[str]:
    """Return what every process recorded of a microbatch."""
    step, index = name.split(".")
    marks = (f"[{step},{index},false]", f"[{step}, {index}, false]")
    lines = [f"history of microbatch {name}:"]
    for path in [run_dir / "trainer" / "events.jsonl", *run_dir.glob("peers/*/events.jsonl")]:
        for line in map(str.rstrip, read_lines(path)):
            if any(mark in line for mark in marks):
                lines.append(f"  {path.parent.name}: {line[:300]}")
    return lines[:MAX_STORY]
