"""The auditor: reads what every process recorded, and checks that the promises were kept.

It believes no process about itself. What a peer accumulated is counted from its own computations;
what was reduced, from the trainer's rosters; and the two must agree for every (microbatch, stage)
of every committed step, exactly once (P1). Replicas that applied the same round must hold the same
weights (P2).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from swarmrt.errors import UsageError
from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.log_files import is_whole, read_lines
from swarmrt.messages import Admit, Apply, Granted, Part, Prepare, Recover, Roster
from swarmrt.observe.accounts import Account, Accounts
from swarmrt.observe.log import Gap, read_faults, read_records
from swarmrt.scheduler.events import (
    BackwardDone,
    ComputeFailed,
    Event,
    ForwardDone,
    StateLoaded,
    Stepped,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import (
    ClearGradients,
    Instruction,
    RaiseEpoch,
    ReportPeer,
    ReportRecovery,
    ReportRollback,
    ReportStep,
    ReportUnlike,
    RunBackward,
    RunWeightGradients,
    Send,
    StepOptimizer,
    SumPart,
)
from swarmrt.scheduler.recording import Header, Record
from swarmrt.scheduler.settings import PeerSettings, TrainerSettings

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
    faults: dict[str, int] = field(default_factory=dict)  # made on purpose, by kind
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
    accounts: list[Account] = field(default_factory=list)  # of the stages

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
            *map(str, self.accounts),
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
    for record in read_records(log):
        trainer.add(record)
    peers = {}
    for path in filter(is_whole, sorted(run_dir.glob("peers/**/events.jsonl"))):
        peer = _Peer()
        try:
            for record in read_records(path):
                peer.add(record)
        except Gap:
            continue
        if peer.me:
            peers[peer.me] = peer
    result = Audit(faults=_faults(run_dir))
    _check_steps(result, trainer, peers)
    _check_digests(result, trainer, peers)
    _check_accounts(result, trainer)
    _count(result, trainer, peers)
    for violation in [v for v in result.violations if "microbatch" in v][:3]:
        result.violations += _story(run_dir, _named(violation))
    return result


@dataclass
class _Commit:
    """A version as the trainer announced it."""

    round: int
    rosters: dict[int, Roster]  # by stage
    skipped: bool = False  # nothing was to be in it
    microbatches: int = 0  # that it has

    def roster_in_epoch(self, stage: int) -> Roster:
        """Return the roster of a stage, with replicas named by their epoch as well: another one
        takes them back to the version."""
        epoch = self.round >> 32
        return tuple((PeerId(f"{epoch}:{peer}"), its) for peer, its in self.rosters.get(stage, ()))


class _Trainer:
    """The decisions of the trainer, over all its incarnations."""

    def __init__(self) -> None:
        self.local_from = 0
        self.turns = 1
        self.stages = 0
        self.epochs: set[int] = set()
        self.commits: dict[int, _Commit] = {}  # version → how it was made, in the last timeline
        self.digests_differ = 0
        self.unlike: list[tuple[int, str, int]] = []  # stage, peer, and in which version it showed
        self.counts: Counter[str] = Counter()
        self.accounts = Accounts()
        self.longest_gap_s = 0.0
        self._microbatches = 0  # in a step, or 0 where they differ
        self._sizes: dict[int, int] = {}  # of a round's step, in microbatches
        self._prepared: dict[int, dict[int, Roster]] = {}
        self._skips: set[int] = set()  # rounds that combine nothing
        self._resuming = False

    def add(self, record: Header | Record) -> None:
        if isinstance(record, Header):
            if isinstance(record.settings, TrainerSettings):
                self._incarnation(record.settings)
            return
        for instruction in record.instructions:
            self._decided(instruction, record.now)

    def _decided(self, instruction: Instruction, now: float) -> None:
        match instruction:
            case Send(to, Prepare() as message):
                self._prepares(to, message)
            case Send(_, Granted(microbatch=mb, need=need) | Recover(microbatch=mb, need=need)):
                self.accounts.granted(mb, need)
            case Send(_, Admit(version=version)):
                self._goes_on(version)
            case Send(_, Apply(step=step, round=number)) if number in self._prepared:
                known = self.commits.get(step + 1)
                if known is None or known.round != number:
                    rosters, skipped = self._prepared[number], number in self._skips
                    size = self._microbatches or self._sizes[number]
                    self.commits[step + 1] = _Commit(number, rosters, skipped, size)
            case ReportPeer(peer=peer, stage=stage):
                self._stages[peer] = stage
            case ReportStep(digests_equal=equal):
                self._step(equal, now)
            case ReportUnlike(stage=stage, peer=peer):
                self.unlike.append((stage, peer, max(self.commits, default=0)))
            case ReportRollback(version=version):
                self.counts["rollbacks"] += 1
                self._back_to(version)
            case ReportRecovery(what="fenced"):
                self.counts["fenced"] += 1
            case ReportRecovery(what=what, count=count):
                self.counts[what] += count
            case RaiseEpoch(epoch=epoch):
                self.epochs.add(epoch)

    def _prepares(self, to: PeerId, message: Prepare) -> None:
        if message.skip:
            self._skips.add(message.round)
        self._sizes[message.round] = message.tokens
        stage = self._stages.get(to)
        if stage is not None and any(peer == to for peer, _ in message.roster):
            self._prepared.setdefault(message.round, {})[stage] = message.roster

    def was_unlike(self, peer: str, stage: int, version: int) -> bool:
        """Return whether what a peer made of a version was known not to count: it rounds
        differently, or it followed a stage in which that was about to be found out."""
        commit = self.commits.get(version)
        roster = dict(commit.rosters.get(stage, ())) if commit is not None else {}
        return any(
            stage == its_stage and version <= until and (peer == named or peer not in roster)
            for its_stage, named, until in self.unlike
        )

    def _incarnation(self, settings: TrainerSettings) -> None:
        self._microbatches = 0 if settings.every_s else settings.microbatches
        self.local_from, self.turns = settings.local_from, settings.turns
        self.stages = len(settings.needed)
        self.epochs.add(settings.epoch)
        self._stages: dict[PeerId, int] = {}
        self._last_commit_at: float | None = None
        self._resuming = settings.resume
        if not self._resuming:
            self.commits.clear()
            self.accounts = Accounts()

    def _goes_on(self, version: int) -> None:
        """The first admission of a resumed run tells where: what is later has to be done again."""
        if self._resuming:
            self._back_to(version)
        self._resuming = False

    def _back_to(self, version: int) -> None:
        self.commits = {v: commit for v, commit in self.commits.items() if v <= version}
        self.accounts.back_to(version)

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

    def add(self, record: Header | Record) -> None:
        if isinstance(record, Header):
            if isinstance(record.settings, PeerSettings):
                self.me, self.stage = record.settings.me, record.settings.stage
            return
        self._happened(record.event)
        for instruction in record.instructions:
            self._told(instruction)

    def _happened(self, event: Event) -> None:
        match event:
            case ForwardDone(microbatch=mb, seconds=seconds):
                self._computed("forward", mb, seconds)
            case BackwardDone(microbatch=mb, seconds=seconds):
                self._computed("backward", mb, seconds)
                self._added(mb)
            case WeightGradientsDone(microbatch=mb, seconds=seconds):
                self._computed("weights", mb, seconds)
                self._added(mb)
            case ComputeFailed(microbatch=mb):
                self._accumulating.discard((mb.step, mb.index))
            case Stepped(version=version, digest=digest):
                if self._stepping is not None:
                    self.made[version, self._stepping] = digest
                self._stepping = None
                self._accumulator = Counter(
                    {mb: times for mb, times in self._accumulator.items() if mb[0] >= version}
                )
            case StateLoaded():
                self._accumulator.clear()

    def _told(self, instruction: Instruction) -> None:
        match instruction:
            case RunBackward(microbatch=mb, accumulate=True, later=False):
                self._accumulating.add((mb.step, mb.index))  # `later`, it is there in part
            case RunWeightGradients(microbatch=mb):
                self._accumulating.add((mb.step, mb.index))
            case ClearGradients():
                self._accumulator.clear()
            case Send(_, Part(summed=False, step=step, round=number)):
                self._gives(step, number)
            case SumPart(step=step, round=number):
                self._gives(step, number)
            case StepOptimizer(round=number):
                self._stepping = number

    def _added(self, mb: MicrobatchId) -> None:
        """The whole gradient, if this is what adds it."""
        if (mb.step, mb.index) in self._accumulating:
            self._accumulator[mb.step, mb.index] += 1
            self._accumulating.remove((mb.step, mb.index))

    def _gives(self, step: int, number: int) -> None:
        """Give what the peer has of the step into the round."""
        its = {mb: times for mb, times in self._accumulator.items() if mb[0] == step}
        self.given.setdefault(number, Counter(its))

    def _computed(self, what: str, mb: MicrobatchId, seconds: float) -> None:
        self.all_seconds += seconds
        if mb.held_out:
            self.evaluation_seconds[mb.step, mb.index] = seconds
        else:
            self.seconds[what, (mb.step, mb.index)].append(seconds)


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
        result.microbatches += commit.microbatches
        for stage in range(trainer.stages):
            roster = commit.rosters.get(stage, ())
            result.violations += _roster_faults(version - 1, stage, roster, commit.microbatches)
            for peer, indices in roster:
                if peer not in peers:
                    result.unchecked += 1
                else:
                    given = peers[peer].given.get(commit.round)
                    result.violations += _contribution_faults(
                        version - 1, stage, peer, indices, given
                    )


def _roster_faults(step: int, stage: int, roster: Roster, microbatches: int) -> Iterator[str]:
    listed = Counter(index for _, indices in roster for index in indices)
    for index in range(microbatches):
        if listed[index] != 1:
            yield f"microbatch {step}.{index} entered stage {stage} {listed[index]} times"


def _contribution_faults(
    step: int, stage: int, peer: str, indices: Sequence[int], given: Counter[Microbatch] | None
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


def _check_accounts(result: Audit, trainer: _Trainer) -> None:
    """Check that whatever was granted is in a version, was dropped, or is in flight still."""
    commits = trainer.commits.items()
    skipped = {version - 1 for version, commit in commits if commit.skipped}
    for stage in range(trainer.stages):
        rosters = {version: commit.roster_in_epoch(stage) for version, commit in commits}
        how = (trainer.local_from, trainer.turns)
        account = trainer.accounts.of_stage(stage, rosters, skipped, *how)
        result.accounts.append(account)
        result.violations += account.faults()


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
    """Count what was done to the run on purpose, by kind."""
    return dict(Counter(str(fault.get("kind")) for fault in read_faults(run_dir)))


def _named(violation: str) -> str:
    return violation.split("microbatch ")[1].split()[0].rstrip(":")


def _story(run_dir: Path, name: str) -> list[str]:
    """Return what every process recorded of a microbatch."""
    step, index = name.split(".")
    marks = (f"[{step},{index},false]", f"[{step}, {index}, false]")
    lines = [f"history of microbatch {name}:"]
    for path in [run_dir / "trainer" / "events.jsonl", *run_dir.glob("peers/**/events.jsonl")]:
        for line in map(str.rstrip, read_lines(path)):
            if any(mark in line for mark in marks):
                lines.append(f"  {path.parent.name}: {line[:300]}")
    return lines[:MAX_STORY]
