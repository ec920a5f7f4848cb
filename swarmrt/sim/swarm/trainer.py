"""A simulated trainer: the production TrainerCore, its disk, and what it reports."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from swarmrt.ids import PeerId
from swarmrt.messages import Prepare
from swarmrt.scheduler.events import CheckpointFailed, CheckpointSaved, Expelled, Started
from swarmrt.scheduler.fetching.sharing import UNHURRIED
from swarmrt.scheduler.instructions import (
    Batch,
    Expel,
    Instruction,
    KeepUnlike,
    OfferCheckpoint,
    RaiseEpoch,
    ReportArranged,
    ReportCheckpointFailed,
    ReportEvaluation,
    ReportExpelled,
    ReportHandOver,
    ReportIslands,
    ReportLate,
    ReportMove,
    ReportPause,
    ReportPeer,
    ReportRecovery,
    ReportRollback,
    ReportStall,
    ReportStep,
    ReportUnable,
    ReportUnlike,
    ReportWaiting,
    SaveCheckpoint,
    Send,
    Stop,
)
from swarmrt.scheduler.settings import StepTold, TrainerSettings
from swarmrt.scheduler.trainer.closing.comparing import TOLD
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.links import Sizes
from swarmrt.sim.engine.network import Network
from swarmrt.sim.engine.process import Process
from swarmrt.sim.swarm.fetching import Exchange, History, digest_of
from swarmrt.sim.swarm.moving import tell_what_moves


@dataclass
class Disk:
    """The files that outlive a trainer's incarnations."""

    epoch: int = 0
    checkpoints: dict[int, tuple[History, ...]] = field(default_factory=dict)
    steps: list[ReportStep] = field(default_factory=list)
    skipped: set[int] = field(default_factory=set)  # steps of which nothing was applied
    sizes: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """How many microbatches a step may have, where not all have as many."""
    committed_at: list[float] = field(default_factory=list)  # each of the steps
    evaluations: list[ReportEvaluation] = field(default_factory=list)
    rollbacks: list[ReportRollback] = field(default_factory=list)
    pauses: list[ReportPause] = field(default_factory=list)
    recoveries: Counter[str] = field(default_factory=Counter)
    fenced: Counter[str] = field(default_factory=Counter)  # whom, and why
    expelled: list[PeerId] = field(default_factory=list)
    unlike_stages: tuple[int, ...] = ()
    unlike: list[PeerId] = field(default_factory=list)
    islands: list[ReportIslands] = field(default_factory=list)
    moves: list[ReportMove] = field(default_factory=list)
    arranged: list[ReportArranged] = field(default_factory=list)

    def told(self, microbatches: int) -> tuple[StepTold, ...]:
        """Return the steps that are told of, with the time that so many microbatches take."""
        return tuple(
            StepTold(
                step.seconds * microbatches / (step.microbatches or microbatches),
                tuple(peer for stage in step.digests for peer, _ in stage),
            )
            for step in self.steps[-TOLD:]
        )

    def digests(self, version: int) -> tuple[str, ...]:
        return tuple(map(digest_of, self.checkpoints.get(version, ())))


class SimulatedTrainer:
    def __init__(
        self,
        settings: TrainerSettings,
        clock: Clock,
        network: Network,
        snapshot_of: Callable[[PeerId, int, int], History | None],
        disk: Disk,
        clock_offset_s: float = 0.0,
        clock_rate: float = 1.0,
        sizes: Sizes | None = None,
    ) -> None:
        self.settings = settings
        self.disk = disk
        self.stopped: Stop | None = None
        self.offered = settings.start_version  # version of the checkpoint that it gives to peers
        self._epoch = settings.epoch
        self._clock, self._network = clock, network
        self._snapshot_of = snapshot_of
        self.process = Process(settings, clock, self._act, clock_offset_s, clock_rate)
        self._exchange = None
        self._disk_hangs_until = self._disk_full_until = 0.0
        if sizes is None:
            network.connect(settings.me, self.process.feed)
        else:
            size = sizes.state_bytes
            self._exchange = Exchange(self.process, clock, network, size, self._give, UNHURRIED)

    def hang_saving(self, seconds: float) -> None:
        """Make whatever is written to its disk take so much longer."""
        self._disk_hangs_until = max(self._disk_hangs_until, self._clock.now + seconds)

    def fill_disk(self, seconds: float) -> None:
        """Have its disk take nothing for so long."""
        self._disk_full_until = self._clock.now + seconds

    @property
    def is_disk_hung(self) -> bool:
        return self._disk_hangs_until > self._clock.now

    def start(self) -> None:
        self.process.feed(Started())
        if self._network.wires is not None:
            tell_what_moves(self.process, self._clock, self._network.wires)

    def _act(self, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message, payload):
                frame = None
                if isinstance(payload, Batch):
                    frame = f"{payload.microbatch} of stage -1 in epoch {self._epoch}"
                if isinstance(message, Prepare):  # its end may be reported by nobody
                    skipped = self.disk.skipped
                    (skipped.add if message.skip else skipped.discard)(message.step)
                    if self.settings.every_s:
                        self.disk.sizes[message.step].add(message.tokens)
                self._network.send(self.settings.me, to, message, frame)
            case SaveCheckpoint():
                self._save(instruction)
            case OfferCheckpoint(version):
                assert version in self.disk.checkpoints
                self.offered = version
            case RaiseEpoch(epoch):
                self.disk.epoch = self._epoch = epoch
            case KeepUnlike(stages):
                self.disk.unlike_stages = stages
            case ReportMove():
                self.disk.moves.append(instruction)
            case ReportArranged():
                self.disk.arranged.append(instruction)
            case ReportUnlike(_, peer):
                self.disk.unlike.append(peer)
            case ReportStep():
                self.disk.steps.append(instruction)
                self.disk.committed_at.append(self._clock.now)
            case ReportEvaluation():
                self.disk.evaluations.append(instruction)
            case ReportRollback():
                self.disk.rollbacks.append(instruction)
            case ReportPause():
                self.disk.pauses.append(instruction)
            case ReportRecovery(_, what, count, reason):
                if what == "fenced":
                    self.disk.fenced[reason] += 1
                self.disk.recoveries[what] += 1 if what == "fenced" else count
            case Expel(peer):
                self.disk.expelled.append(peer)
                self.process.feed(Expelled(peer, instruction.reason))
            case ReportWaiting() | ReportUnable() | ReportPeer() | ReportHandOver():
                pass
            case ReportIslands():
                self.disk.islands.append(instruction)
            case ReportCheckpointFailed() | ReportExpelled() | ReportStall() | ReportLate():
                pass
            case Stop():
                self.stopped = instruction
                self.process.alive = False
            case _:
                raise AssertionError(f"a trainer cannot {instruction}")

    def _give(self, stage: int, version: int) -> History | None:
        """Return what peers ask for, if it is offered."""
        return self.disk.checkpoints[version][stage] if self.offered == version else None

    def _save(self, what: SaveCheckpoint) -> None:
        """Collect one state a stage, one after the other; without sizes, in half a second."""
        if self._exchange is not None:
            self._collect(what, [])
            return

        def find() -> None:
            found = []
            for stage, donors in enumerate(what.donors):
                states = (self._snapshot_of(donor, stage, what.version) for donor in donors)
                found.append(next((state for state in states if state is not None), None))
            self._write(what, found)

        self._clock.after(0.5, find)

    def _collect(self, what: SaveCheckpoint, found: list[History | None]) -> None:
        """Get the states that are not found yet, then write all."""
        stage, exchange = len(found), self._exchange
        assert exchange is not None
        if stage == len(what.donors):
            self._write(what, found)
            return

        def got(state: History | None) -> None:
            exchange.forget(stage, what.version)
            self._collect(what, [*found, state])

        exchange.get(stage, what.version, what.digests[stage], what.donors[stage], got)

    def _write(self, what: SaveCheckpoint, found: list[History | None]) -> None:
        hung_s = self._disk_hangs_until - self._clock.now
        if hung_s > 0:
            self._clock.after(hung_s, lambda: self._write(what, found))
            return
        if not self.process.alive:
            return
        if self._clock.now < self._disk_full_until:
            self.process.feed(CheckpointFailed(what.version, "no space is left on the disk"))
            return
        whole = tuple(state for state in found if state is not None)
        if len(whole) < len(found):
            self.process.feed(CheckpointFailed(what.version, "no donor has it"))
            return
        assert tuple(map(digest_of, whole)) == what.digests
        self.disk.checkpoints[what.version] = whole
        self.process.feed(CheckpointSaved(what.version))
