"""TrainerCore: every decision of the trainer. Events in, instructions out.

Rules:
- Peers seen in the directory are admitted at the current version; the run begins when every
  stage has the replicas that were asked for.
- A step is a fixed set of microbatches; a window bounds those in flight.
- The ledger grants each microbatch to one route.
- Commit has two phases. Prepare: every stage reduces over its roster. Apply, once *all* stages
  are prepared: one global norm, one update. So no stage is ever ahead of another for good.
- Evaluations of a version run beside the next step, and hold up its commit.
- A replica that drains is let go when it holds nothing of the step.
- Newcomers get the state of a replica, and join the next commit.
- A replica that is lost takes its gradients of the step with it. The step is void then: the epoch
  goes up, everyone drops what it did of the step, and the others do it again. Once a commit has
  come to Apply it stands, because every live replica holds the whole gradient.

    WAITING → TRAINING ⇄ PREPARING → … → CLOSING → (Stop)
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Applied,
    Apply,
    Beacon,
    Busy,
    Claim,
    Evaluated,
    Finish,
    Forward,
    Granted,
    Leaving,
    Message,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Stale,
)
from swarmrt.scheduler.commit import Commit
from swarmrt.scheduler.estimate import Estimate, Window
from swarmrt.scheduler.evaluation import Evaluation
from swarmrt.scheduler.events import (
    CheckpointFailed,
    CheckpointSaved,
    DeadlinePassed,
    Event,
    PeerLost,
    PeersSeen,
    Received,
    SendFailed,
    Started,
    StopRequested,
)
from swarmrt.scheduler.instructions import (
    Batch,
    Instruction,
    RaiseEpoch,
    ReportCheckpointFailed,
    ReportPeer,
    ReportVoid,
    ReportWaiting,
    SaveCheckpoint,
    Send,
    StartDeadline,
    Stop,
)
from swarmrt.scheduler.ledger import Ledger
from swarmrt.scheduler.membership import Absent, Member, Members, Membership
from swarmrt.scheduler.wiring import Wiring

WAITING_S = 1.0  # between reports of who is missing
REWIRE_S = 0.25  # before asking again when no replica of stage 0 can take work
STALL_S = 300.0  # without any progress anywhere, before anything is known of the step time
STALL_STEPS = 20  # and after


class Phase(StrEnum):
    WAITING = "waiting"
    TRAINING = "training"
    PREPARING = "preparing"
    CLOSING = "closing"


@dataclass(frozen=True)
class TrainerSettings:
    me: PeerId
    seed: int
    epoch: int
    start_version: int
    steps: int  # the version at which the run is done
    microbatches: int
    eval_every: int  # versions; 0 evaluates only the last one
    eval_microbatches: int
    checkpoint_every: int  # versions; 0 keeps only the last one
    needed: tuple[int, ...]  # replicas to wait for, by stage
    start_digests: tuple[str, ...]  # of the start version, by stage; empty when not known
    record_ttl_s: float  # how long the directory may name a peer that is gone


@dataclass(slots=True)
class Flight:
    """A microbatch on its way."""

    work: Work
    peer: PeerId  # of stage 0
    sent_at: float


class TrainerCore:
    def __init__(self, settings: TrainerSettings) -> None:
        self.settings = settings
        self.phase = Phase.WAITING
        self.epoch = settings.epoch
        self.version = settings.start_version
        self.num_stages = len(settings.needed)
        self.members = Members(self.num_stages)
        self.ledger = self._new_ledger()
        self._last_version = settings.steps
        self._needed = settings.needed
        self._digests = settings.start_digests or ("",) * self.num_stages  # of the version
        self._pending: deque[MicrobatchId] = deque()
        self._flights: dict[MicrobatchId, Flight] = {}
        self._attempts: dict[MicrobatchId, int] = {}
        self._evaluation = Evaluation(self.version, 0)
        self._prepared: dict[PeerId, Prepared] = {}
        self._roster: dict[PeerId, int] = {}  # of the round: peer → stage
        self._round = 0
        self._commit: Commit | None = None
        self._saving: int | None = None  # version whose checkpoint is being written
        self._saved: int | None = None
        self._begun = False
        self._stopping = False
        self._step_time = Estimate()
        self._step_began_at = 0.0
        self._progress_at = 0.0
        self._absent = Absent(settings.record_ttl_s)
        self._window = Window(least=2 * self.num_stages)
        self._wiring = Wiring(random.Random(settings.seed))

    # ------------------------------------------------------------------ the door

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """What to do about it. Answers that are no longer waited for give []."""
        match event:
            case Started():
                self._progress_at = now
                waiting = StartDeadline("waiting", now + WAITING_S)
                return [waiting, StartDeadline("stall", now + STALL_S)]
            case Received(sender, message):
                return self._received(sender, message, now)
            case PeersSeen(stage, peers):
                return self._peers_seen(stage, peers, now)
            case SendFailed(to, Forward(work=work)):
                return self._refused(to, work, now + REWIRE_S, now)
            case PeerLost(peer, reason):
                return self._peer_lost(peer, reason, now)
            case CheckpointSaved(version):
                self._saving, self._saved = None, version
                return self._advance(now)
            case CheckpointFailed(version, reason):
                return self._checkpoint_failed(version, reason, now)
            case DeadlinePassed("waiting"):
                return self._report_waiting(now)
            case DeadlinePassed("rewire"):
                return self._fill(now)
            case DeadlinePassed("stall"):
                return self._watch(now)
            case StopRequested(reason):
                return self._stop_requested(reason, now)
        return []

    def _received(self, sender: PeerId, message: Message, now: float) -> list[Instruction]:
        member = self.members.get(sender)
        if member is None:
            return []
        match message:
            case Ready():
                return self._ready(member, message, now)
            case Accepted(_, service_s, _):
                self._wiring.observe(sender, service_s)
                return []
            case Busy(work, service_s, _):
                self._wiring.observe(sender, service_s)
                return self._refused(sender, work, now + max(REWIRE_S, service_s), now)
            case Claim():
                return self._claim(sender, message)
            case Accumulated(work, stage):
                return self._receipt(sender, work, stage, now)
            case Evaluated():
                return self._evaluated(message, now)
            case Prepared():
                return self._stage_prepared(sender, message, now)
            case Refused(step, number, reason):
                if (step, number) != (self.version, self._round):
                    return []
                return [self._give_up(f"stage {member.stage}, {sender}: {reason}")]
            case Applied(version, digest):
                return self._applied(member, version, digest, now)
            case Beacon():
                return self._beacon(member, message, now)
            case Leaving(epoch) if epoch == self.epoch:
                return self._leaving(member, now)
        return []

    # ------------------------------------------------------------------ members

    def _peers_seen(self, stage: int, peers: tuple[PeerId, ...], now: float) -> list[Instruction]:
        admissions: list[Instruction] = []
        for peer in self._absent.without(peers, now):
            member = self.members.see(peer, stage)
            if member is not None and not self._begun:
                donors = (self.settings.me,) if self.version else ()
                admissions.append(self._admit(member, donors))
        return admissions

    def _admit(self, member: Member, donors: tuple[PeerId, ...]) -> Send:
        member.state, member.loading = Membership.ADMITTED, bool(donors)
        digest = self._digests[member.stage]
        return Send(member.peer, Admit(self.epoch, self.version, digest, donors))

    def _ready(self, member: Member, message: Ready, now: float) -> list[Instruction]:
        if message.epoch != self.epoch or message.version != self.version:
            return []
        if member.state is not Membership.ADMITTED:
            return []
        member.state, member.loading = Membership.READY, False
        member.digest = message.digest
        self._progress_at = now
        differing = {m.digest for m in self.members.of_stage(member.stage, Membership.READY)}
        if len(differing) > 1:
            return [
                self._give_up(
                    f"replicas of stage {member.stage} hold different weights at version "
                    f"{self.version}: do all run the same software?"
                )
            ]
        if member.stage == 0:
            self._wiring.add(member.peer)
        report = ReportPeer(member.peer, member.stage, "ready", self.version, 0, 0, 0.0)
        return [report, *self._advance(now)]

    def _peer_lost(self, peer: PeerId, reason: str, now: float) -> list[Instruction]:
        member = self.members.lose(peer)
        if member is None:
            return []
        self._absent.add(peer, now)
        self._wiring.remove(peer)
        report = ReportPeer(peer, member.stage, "lost", self.version, 0, 0, 0.0)
        if self._is_closing:
            return [report]
        what = f"stage {member.stage} lost {peer}: {reason}"
        return [report, *self._not_applied(peer, now), *self._go_on_without(member, what, now)]

    def _go_on_without(self, member: Member, what: str, now: float) -> list[Instruction]:
        if self._is_closing:
            return []
        if self._begun and not self.members.holders(member.stage):
            return [self._give_up(f"{what}. It was the last one; continue with --resume")]
        if self.phase is Phase.WAITING or member.state is not Membership.READY:
            return self._advance(now)
        return self._void_step(what, now)

    def _leaving(self, member: Member, now: float) -> list[Instruction]:
        """It holds nothing of this step. In a reduce it is still needed for its parts."""
        member.leaving = True
        self._wiring.remove(member.peer)
        return [] if self.phase is Phase.PREPARING else self._let_go(member, now)

    def _let_go(self, member: Member, now: float) -> list[Instruction]:
        """It is not missed: what was sent to it meanwhile it has refused."""
        member.state = Membership.SEEN
        refused = [f.work.microbatch for f in self._flights.values() if f.peer == member.peer]
        for microbatch in refused:
            del self._flights[microbatch]
            self._pending.appendleft(microbatch)
        finish = Send(member.peer, Finish(f"drained at step {self.version}"))
        return [finish, *self._peer_lost(member.peer, "it has left", now), *self._fill(now)]

    def _not_applied(self, peer: PeerId, now: float) -> list[Instruction]:
        """A commit does not wait for the dead."""
        commit = self._commit
        if commit is None or peer not in commit.expected:
            return []
        commit.without(peer)
        return self._close_commit(commit, now)

    def _void_step(self, reason: str, now: float) -> list[Instruction]:
        """Do the step again, in a new epoch, with those that are left."""
        self.epoch += 1
        self.phase = Phase.WAITING
        self._needed = (1,) * self.num_stages
        self._pending.clear()
        self._flights.clear()
        self.ledger = self._new_ledger()
        self._prepared, self._roster = {}, {}
        admissions: list[Instruction] = []
        for member in self.members:
            self._wiring.remove(member.peer)
            if member.loading:
                member.state = Membership.SEEN  # its donors' snapshot may be gone by now
            elif member.state is not Membership.SEEN:
                admissions.append(self._admit(member, ()))
        void = ReportVoid(self.version, reason)
        waiting = StartDeadline("waiting", now + WAITING_S)
        return [RaiseEpoch(self.epoch), void, *admissions, waiting]

    def _beacon(self, member: Member, beacon: Beacon, now: float) -> list[Instruction]:
        if beacon.done > member.done:
            member.done, self._progress_at = beacon.done, now
        return [
            ReportPeer(
                member.peer,
                member.stage,
                str(member.state),
                beacon.version,
                beacon.queued,
                beacon.done,
                beacon.service_s,
            )
        ]

    # ------------------------------------------------------------------ a step

    def _advance(self, now: float) -> list[Instruction]:
        """Begin, commit or end, if it is time to."""
        if self.phase is Phase.WAITING:
            missing = zip(self.members.counts, self._needed, strict=True)
            if all(ready >= needed for ready, needed in missing):
                return self._open_step(now)
            return []
        if self.phase is not Phase.TRAINING or self._pending or self._flights:
            return []
        if not self._evaluation.is_complete:
            return []
        report = self._evaluation.report()
        if self.version == self._last_version:
            return [*report, *self._finish()]
        return [*report, *self._prepare(now)]

    def _open_step(self, now: float) -> list[Instruction]:
        """Feed the current version's microbatches, its evaluation first."""
        self.phase = Phase.TRAINING
        self.ledger = self._new_ledger()
        if not self._begun:
            self._evaluation = self._new_evaluation()
        self._begun = True
        self._pending.extend(self._evaluation.pending())
        if self.version < self._last_version:
            self._pending.extend(
                MicrobatchId(self.version, index) for index in range(self.settings.microbatches)
            )
        self._step_began_at = now
        self._window.pause()
        return self._fill(now) or self._advance(now)

    def _new_evaluation(self) -> Evaluation:
        """Of this version: every so often, and of the last one."""
        every, is_last = self.settings.eval_every, self.version == self._last_version
        is_due = every > 0 and self._begun and self.version % every == 0
        if (is_last and not self._stopping) or (is_due and not is_last):
            return Evaluation(self.version, self.settings.eval_microbatches)
        return Evaluation(self.version, 0)

    def _fill(self, now: float) -> list[Instruction]:
        """Dispatch while the window has room."""
        sends: list[Instruction] = []
        while self._pending and len(self._flights) < self._window.size:
            peer = self._wiring.choose(now)
            if peer is None:
                return [*sends, StartDeadline("rewire", now + REWIRE_S)]
            microbatch = self._pending.popleft()
            attempt = self._attempts[microbatch] = self._attempts.get(microbatch, 0) + 1
            work = Work(microbatch, attempt)
            self._flights[microbatch] = Flight(work, peer, now)
            forward = Forward(work, self.epoch, ())
            sends.append(Send(peer, forward, Batch(microbatch)))
        return sends

    def _refused(self, peer: PeerId, work: Work, until: float, now: float) -> list[Instruction]:
        """A replica of stage 0 did not take a microbatch: another attempt, elsewhere."""
        self._wiring.block(peer, until)
        flight = self._flights.get(work.microbatch)
        if flight is None or flight.work != work or flight.peer != peer:
            return []
        del self._flights[work.microbatch]
        self._pending.appendleft(work.microbatch)
        return self._fill(now)

    def _claim(self, sender: PeerId, claim: Claim) -> list[Instruction]:
        work = claim.work
        valid = (
            claim.epoch == self.epoch
            and work.microbatch.step == self.version
            and not work.microbatch.held_out
            and 0 <= work.microbatch.index < self.settings.microbatches
            and len(claim.route) == self.num_stages
            and claim.route[-1] == sender
        )
        if valid and self.ledger.claim(claim):
            return [Send(sender, Granted(work))]
        return [Send(sender, Stale(work))]

    def _receipt(self, sender: PeerId, work: Work, stage: int, now: float) -> list[Instruction]:
        if work.microbatch.step != self.version:
            return []
        if not self.ledger.receipt(sender, work, stage):
            return []
        self._progress_at = now
        if not self.ledger.is_finished(work.microbatch.index):
            return []
        return self._landed(work.microbatch, now)

    def _evaluated(self, message: Evaluated, now: float) -> list[Instruction]:
        microbatch = message.work.microbatch
        if not microbatch.held_out or microbatch.step != self.version:
            return []
        self._evaluation.add(message)
        self._progress_at = now
        return self._landed(microbatch, now)

    def _landed(self, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        flight = self._flights.pop(microbatch, None)
        if flight is not None:
            self._window.finished(now - flight.sent_at, now)
        return self._fill(now) + self._advance(now)

    # ------------------------------------------------------------------ commit

    def _prepare(self, now: float) -> list[Instruction]:
        """Ask every stage to reduce, once newcomers are in and the last commit is whole."""
        joining = self.members.in_state(Membership.ADMITTED)
        if joining or self._commit is not None or not self.ledger.complete:
            return []
        if self._snapshot_due and self._saving is not None:
            return []
        self.phase = Phase.PREPARING
        self._round += 1
        self._prepared, self._roster = {}, {}
        sends: list[Instruction] = []
        for stage in range(self.num_stages):
            roster = self.ledger.roster(stage, self.members.ready(stage))
            prepare = Prepare(self.epoch, self.version, self._round, roster, self.ledger.tokens)
            for peer, _ in roster:
                self._roster[peer] = stage
                sends.append(Send(peer, prepare))
        return sends

    @property
    def _snapshot_due(self) -> bool:
        return self._checkpoint_due or bool(self.members.in_state(Membership.SEEN))

    @property
    def _checkpoint_due(self) -> bool:
        """Whether the version after this step is to be saved."""
        version, every = self.version + 1, self.settings.checkpoint_every
        return version == self._last_version or (every > 0 and version % every == 0)

    def _stage_prepared(self, sender: PeerId, message: Prepared, now: float) -> list[Instruction]:
        if self.phase is not Phase.PREPARING or sender not in self._roster:
            return []
        if (message.step, message.round) != (self.version, self._round):
            return []
        self._prepared[sender] = message
        self._progress_at = now
        if len(self._prepared) < len(self._roster):
            return []
        return self._apply(now)

    def _apply(self, now: float) -> list[Instruction]:
        """All stages are prepared: announce the global norm, and go on to the next step."""
        squared_norm = 0.0
        for stage in range(self.num_stages):
            replicas = [peer for peer, its_stage in self._roster.items() if its_stage == stage]
            if len({self._prepared[peer].digest for peer in replicas}) > 1:
                return [self._give_up(f"replicas of stage {stage} hold different gradients")]
            squared_norm += self._prepared[replicas[0]].squared_norm
        if not math.isfinite(squared_norm):
            return [self._give_up(f"the gradient of step {self.version + 1} is not finite")]
        commit = self._open_commit(math.sqrt(squared_norm), now)
        sends: list[Instruction] = [
            Send(
                peer,
                Apply(
                    self.epoch,
                    self.version,
                    self._round,
                    commit.norm,
                    commit.snapshot,
                ),
            )
            for peer in self._roster
        ]
        self._step_time.add(commit.seconds)
        self.version = commit.version
        self._digests = ("",) * self.num_stages
        self._attempts = {}
        self._evaluation = self._new_evaluation()
        return sends + self._open_step(now)

    def _open_commit(self, norm: float, now: float) -> Commit:
        self._commit = Commit(
            version=self.version + 1,
            num_stages=self.num_stages,
            expected=dict(self._roster),
            loss=self.ledger.loss,
            tokens=self.ledger.tokens,
            norm=norm,
            seconds=now - self._step_began_at,
            snapshot=self._snapshot_due,
            checkpoint=self._checkpoint_due,
        )
        return self._commit

    def _applied(self, member: Member, version: int, digest: str, now: float) -> list[Instruction]:
        commit = self._commit
        if commit is None or version != commit.version or member.peer not in commit.expected:
            return []
        member.digest = commit.applied[member.peer] = digest
        self._progress_at = now
        return self._close_commit(commit, now)

    def _close_commit(self, commit: Commit, now: float) -> list[Instruction]:
        """Once every live replica has applied it."""
        if not commit.is_whole:
            return []
        self._commit = None
        instructions = self._committed(commit)
        for member in self.members.in_state(Membership.READY):
            if member.leaving:
                instructions += self._let_go(member, now)
        return instructions + self._advance(now)

    def _committed(self, commit: Commit) -> list[Instruction]:
        """Every replica holds the new version."""
        report, digests = commit.report(), commit.digests
        instructions: list[Instruction] = [report]
        if not report.digests_equal:
            return [*instructions, self._give_up("replicas of a stage hold different weights")]
        if not all(digests):
            return instructions  # a stage is lost, which is dealt with where it was
        self._digests = tuple(replicas[0][1] for replicas in digests)
        donors = tuple(tuple(peer for peer, _ in replicas) for replicas in digests)
        if commit.checkpoint:
            self._saving = commit.version
            save = SaveCheckpoint(commit.version, self.epoch, donors, self._digests)
            instructions.append(save)
        if commit.snapshot:
            instructions += [
                self._admit(newcomer, donors[newcomer.stage])
                for newcomer in self.members.in_state(Membership.SEEN)
            ]
        return instructions

    def _checkpoint_failed(self, version: int, reason: str, now: float) -> list[Instruction]:
        """The last one is what the run was for; an earlier one is made up for by the next."""
        self._saving = None
        if version == self._last_version:
            return [self._give_up(f"the checkpoint of step {version} failed: {reason}")]
        return [ReportCheckpointFailed(version, reason), *self._advance(now)]

    # ------------------------------------------------------------------ the end

    def _finish(self) -> list[Instruction]:
        """The last version is applied, evaluated and saved."""
        started = self.version > self.settings.start_version
        if self._commit is not None or (started and self._saved != self.version):
            return []
        self.phase = Phase.CLOSING
        reason = "the run was stopped" if self._stopping else "the run is done"
        return [*self._tell_all(reason), Stop(reason, error=False)]

    def _stop_requested(self, reason: str, now: float) -> list[Instruction]:
        """Once: commit this step, save it, leave. Twice, or before the first step: leave."""
        if self._stopping or self.phase is Phase.WAITING:
            self.phase = Phase.CLOSING
            return [*self._tell_all(reason), Stop(reason, error=False)]
        self._stopping = True
        if self.version < self._last_version:
            self._last_version = self.version + 1
        else:
            self._drop_evaluation()
        return self._advance(now)

    def _drop_evaluation(self) -> None:
        self._evaluation.drop()
        self._pending.clear()
        self._flights.clear()

    @property
    def _is_closing(self) -> bool:
        return self.phase is Phase.CLOSING

    def _give_up(self, reason: str) -> Stop:
        self.phase = Phase.CLOSING
        return Stop(reason, error=True)

    def _tell_all(self, reason: str) -> list[Instruction]:
        return [Send(member.peer, Finish(reason)) for member in self.members]

    def _watch(self, now: float) -> list[Instruction]:
        """Nothing may wait for ever without saying why."""
        stall_s = STALL_S
        if self._step_time.samples:
            stall_s = max(STALL_S / 5, STALL_STEPS * self._step_time.mean_s)
        if self.phase is Phase.WAITING or now - self._progress_at < stall_s:
            return [StartDeadline("stall", now + stall_s / 4)]
        return [self._give_up(f"no progress for {stall_s:.0f} s; waiting for {self._awaited()}")]

    def _awaited(self) -> str:
        """For people: what the step is waiting for."""
        if self.phase is Phase.PREPARING:
            return f"PREPARED of {sorted(set(self._roster) - set(self._prepared))}"
        joining = [m.peer for m in self.members.in_state(Membership.ADMITTED)]
        if joining:
            return f"newcomers to load their state: {joining}"
        return f"receipts of (microbatch, stage) {self.ledger.missing()[:8]}"

    # ------------------------------------------------------------------ reports

    def _report_waiting(self, now: float) -> list[Instruction]:
        if self.phase is not Phase.WAITING:
            return []
        report = ReportWaiting(self.members.counts, self._needed)
        return [report, StartDeadline("waiting", now + WAITING_S)]

    def _new_ledger(self) -> Ledger:
        return Ledger(self.version, self.settings.microbatches, self.num_stages)

    # ------------------------------------------------------------------ invariants

    def validate(self) -> None:
        """What always holds between events."""
        self.ledger.validate()
        self._wiring.validate()
        assert self.ledger.step == self.version
        for microbatch, flight in self._flights.items():
            assert flight.work.microbatch == microbatch and microbatch not in self._pending
        assert set(self._prepared) <= set(self._roster)
