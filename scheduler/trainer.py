"""TrainerCore: every decision of the trainer. Events in, instructions out.

Rules:
- A peer is admitted when it has the current version, or can get it. The run begins when every
  stage has the replicas that were asked for.
- A step is a fixed set of microbatches; a window bounds those in flight.
- With a staleness of 1, a step runs on the version before its own, so that the next step is open
  while this one is reduced.
- The ledger says who owns each (microbatch, stage). A peer that is lost, or does not answer, or
  makes no progress, is fenced: what it did in the step is void, and others recover it.
- Commit has two phases. Prepare: every stage reduces over its roster. Apply, once *all* stages
  are prepared: one global norm, one update. A round that loses a member is void, and repeated.
- Evaluations of a version run beside the next step, and hold up its commit.
- Newcomers get a replica's state while the others go on, follow the commits that they miss, and
  are ready when they have caught up.
- A stage without any replica pauses the run. If the peers' state is lost with it, all stages go
  back to the last checkpoint, in a new epoch.
- Whatever is awaited is asked for again when it is overdue. Deadlines are learned.

    HAILING → WAITING → TRAINING ⇄ PREPARING → … → CLOSING → (Stop)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Applied,
    Apply,
    Beacon,
    Busy,
    Claim,
    Drain,
    Evaluated,
    Finish,
    Forward,
    Granted,
    Hail,
    Leaving,
    Message,
    Prepared,
    Ready,
    Recover,
    Refused,
    Released,
    Stale,
    Standing,
)
from swarmrt.scheduler.agenda import Agenda
from swarmrt.scheduler.books import Books
from swarmrt.scheduler.commit import Commit, Round
from swarmrt.scheduler.dispatch import REWIRE_S, Dispatch, Late
from swarmrt.scheduler.estimate import Estimate
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
from swarmrt.scheduler.health import Verdict
from swarmrt.scheduler.instructions import (
    Batch,
    Instruction,
    OfferCheckpoint,
    RaiseEpoch,
    ReportCheckpointFailed,
    ReportHandOver,
    ReportPause,
    ReportPeer,
    ReportRecovery,
    ReportRollback,
    ReportWaiting,
    Send,
    StartDeadline,
    Stop,
)
from swarmrt.scheduler.ledger import NOBODY, Grant, Ledger
from swarmrt.scheduler.membership import Member, Members, Membership
from swarmrt.scheduler.receipts import Receipts
from swarmrt.scheduler.reducing import MAX_BEHIND
from swarmrt.scheduler.replicas import Absent
from swarmrt.scheduler.resumption import choose_version
from swarmrt.scheduler.saving import Saving

SAVES = 5  # tries to write the last checkpoint
WAITING_S = 1.0  # between reports of who is missing
HEALTH_S = 0.25  # between looks at who is late
SETTLE_S = 3.0  # for more peers to answer a hail, once there are enough
ANSWER_S = 5.0  # for the first answers of a kind, before it is known how long they take
ROUND_S = 30.0  # for the first rounds
ASK_AGAIN = 2 / 3  # of the time after which a round is void
STALL_S = 300.0  # without any progress anywhere, before anything is known of the step time
STALL_STEPS = 20  # and after


class Phase(StrEnum):
    HAILING = "hailing"
    WAITING = "waiting"
    TRAINING = "training"
    PREPARING = "preparing"
    CLOSING = "closing"


@dataclass(frozen=True)
class TrainerSettings:
    me: PeerId
    seed: int
    epoch: int
    start_version: int  # of the checkpoint that is resumed, or 0
    steps: int  # the version at which the run is done
    microbatches: int
    eval_every: int  # versions; 0 evaluates only the last one
    eval_microbatches: int
    checkpoint_every: int  # versions; 0 keeps only the last one
    needed: tuple[int, ...]  # replicas to wait for, by stage
    start_digests: tuple[str, ...]  # of the start version, by stage; empty when not known
    record_ttl_s: float  # how long the directory may name a peer that is gone
    resume: bool  # go on from what the peers hold, if that is newer
    staleness: int = 0  # versions between the weights that a step runs on and those it updates


class TrainerCore:
    def __init__(self, settings: TrainerSettings) -> None:
        self.settings = settings
        self.phase = Phase.HAILING if settings.resume else Phase.WAITING
        self.epoch = settings.epoch
        self.version = settings.start_version
        self.num_stages = len(settings.needed)
        self.members = Members(self.num_stages)
        self.books = Books(settings.microbatches, self.num_stages)
        self.books.open(self.version)
        self.dispatch = Dispatch(settings.seed)
        self._last_version = settings.steps
        self._needed = settings.needed
        self._digests = settings.start_digests or ("",) * self.num_stages  # of the version
        self._evaluation = Evaluation(self.version, 0)
        self._round: Round | None = None
        self._rounds = settings.epoch << 32  # so that numbers are unique over incarnations
        self._commit: Commit | None = None
        self._update = (-1, 0.0)  # round and norm of the one that made this version, if known
        self._saving = Saving(settings.start_version, self._digests)
        self._offered: int | None = settings.start_version if settings.start_version else None
        self._settling = False
        self._begun = False
        self._stopping = False
        self._step_time = Estimate()
        self._round_time = Estimate()
        self._apply_time = Estimate()
        self._void_rounds = 0  # of this step
        self._step_began_at = 0.0
        self._applied_at = 0.0
        self._progress_at = 0.0
        self._looked_at = 0.0
        self._absent = Absent(settings.record_ttl_s)
        self._agenda: Agenda[Late] = Agenda("overdue")
        self._receipts = Receipts(self._agenda)

    # ------------------------------------------------------------------ the door

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """What to do about it. Answers that are no longer waited for give []."""
        return [*self._handle(event, now), *self._agenda.arm()]

    def _handle(self, event: Event, now: float) -> list[Instruction]:
        if self.phase is Phase.CLOSING:
            return []
        match event:
            case Started():
                return self._started(now)
            case Received(sender, message):
                return self._received(sender, message, now)
            case PeersSeen(stage, peers):
                return self._peers_seen(stage, peers, now)
            case SendFailed(to, Forward(work=work)):
                self.dispatch.refused(to, work, now + REWIRE_S)
                return self._fill(now)
            case SendFailed(to, Hail() | Admit()):
                return self._peer_lost(to, "it cannot be reached", now)
            case PeerLost(peer, reason):
                return self._peer_lost(peer, reason, now)
            case CheckpointSaved(version):
                self._saving.done(version)
                return self._advance(now)
            case CheckpointFailed(version, reason):
                return self._checkpoint_failed(version, reason, now)
            case DeadlinePassed(name):
                return self._deadline_passed(name, now)
            case StopRequested(reason):
                return self._stop_requested(reason, now)
        return []

    def _deadline_passed(self, name: str, now: float) -> list[Instruction]:
        match name:
            case "waiting":
                return self._report_waiting(now)
            case "rewire":
                return self._fill(now)
            case "health":
                return self._look_after_members(now)
            case "settle":
                return self._settle(now)
            case "save":
                self._saving.rests = False
                return self._advance(now)
            case "stall":
                return self._watch(now)
            case "overdue":
                return [i for key in self._agenda.due(now) for i in self._overdue(*key, now)]
        return []

    def _received(self, sender: PeerId, message: Message, now: float) -> list[Instruction]:
        if isinstance(message, Beacon):
            return self._beacon(sender, message, now)
        member = self.members.get(sender)
        if member is None:
            return []
        match message:
            case Ready(epoch, term, version, digest) if self._is_current(member, epoch, term):
                return self._ready(member, version, digest, now)
            case Accepted(_, service_s, backlog_s):
                self.dispatch.wiring.observe(sender, service_s, backlog_s)
                return []
            case Busy(work, service_s):
                self.dispatch.wiring.observe(sender, service_s)
                self.dispatch.refused(sender, work, now + max(REWIRE_S, service_s))
                return self._fill(now)
            case Stale(work):
                self.dispatch.refused(sender, work, now + REWIRE_S)
                return self._fill(now)
            case Claim():
                return self._claim(member, message, now)
            case Evaluated(epoch=epoch) if epoch == self.epoch:
                return self._evaluated(message, now)
            case Accumulated(epoch, term, mb) if self._is_current(member, epoch, term):
                return self._receipt(member, mb, now)
            case Released(epoch, term, mb, reason) if self._is_current(member, epoch, term):
                return self._released(member, mb, reason, now)
            case Prepared():
                return self._stage_prepared(sender, message, now)
            case Refused():
                return self._refused(member, message, now)
            case Applied(epoch, version, digest) if epoch == self.epoch:
                return self._applied(member, version, digest, now)
            case Leaving(epoch, term, idle) if self._is_current(member, epoch, term):
                return self._leaving(member, idle, now)
        return []

    @property
    def ledger(self) -> Ledger:
        """Of the step that is next to be committed."""
        return self.books[self.version]

    def _is_current(self, member: Member, epoch: int, term: int) -> bool:
        return (epoch, term) == (self.epoch, member.term) and member.state is not Membership.SEEN

    def _started(self, now: float) -> list[Instruction]:
        self._progress_at = self._looked_at = now
        return [
            StartDeadline("waiting", now + WAITING_S),
            StartDeadline("health", now + HEALTH_S),
            StartDeadline("stall", now + STALL_S),
        ]

    # ------------------------------------------------------------------ who is there

    def _peers_seen(self, stage: int, peers: tuple[PeerId, ...], now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        for peer in self._absent.without(peers, now):
            if self.members.see(peer, stage) is not None:
                instructions.append(Send(peer, Hail(self.epoch)))
        return instructions

    def _beacon(self, sender: PeerId, beacon: Beacon, now: float) -> list[Instruction]:
        """What a peer is and holds. Whoever missed a message is told again."""
        if not 0 <= beacon.stage < self.num_stages:
            return []
        self._absent.discard(sender)
        self.members.see(sender, beacon.stage)
        member = self.members.get(sender)
        assert member is not None
        if beacon.done > member.health.done:
            self._progress_at = now
        member.health.beacon(now, beacon.queued, beacon.done)
        self.dispatch.window.heard(sender, beacon.queued, beacon.service_s)
        member.beacon = beacon
        instructions: list[Instruction] = [_report(member)]
        if member.suspect:
            member.suspect = False
            instructions += [*self._welcome(member), *self._fill(now)]
        if beacon.epoch < self.epoch:
            return [*instructions, Send(sender, Hail(self.epoch))]
        return instructions + self._reconcile(member, beacon, now)

    def _reconcile(self, member: Member, beacon: Beacon, now: float) -> list[Instruction]:
        """Bring what the trainer thinks of a peer and what it says of itself together."""
        if self.phase is Phase.HAILING:
            return self._consider_settling(now)
        is_here = beacon.term == member.term and beacon.state != "joining"
        was_doubted, member.doubted = member.doubted, not is_here
        match member.state:
            case Membership.SEEN:
                return self._consider(member, now)
            case Membership.READY if not is_here and not was_doubted:
                return []  # it may have left before the admission, and come by another way
            case Membership.READY if not is_here:
                reason = "it has voided its work"
                return self._fence(member, reason, now) + self._consider(member, now)
            case Membership.READY if self._is_left_behind(member, beacon, now):
                reason = f"it missed the commit of version {self.version}"
                return self._fence(member, reason, now) + self._consider(member, now)
            case Membership.ADMITTED if beacon.term < member.term:
                return [self._admission(member)]
            case Membership.ADMITTED if not is_here:  # it could not get the state
                member.state = Membership.SEEN
                return self._consider(member, now)
            case Membership.ADMITTED if beacon.state == "serving":
                return self._has_caught_up(member, beacon, now)
        return []

    def _has_caught_up(self, member: Member, beacon: Beacon, now: float) -> list[Instruction]:
        """A newcomer that missed a part of a commit never will: it gets the state once more."""
        member.reached = beacon.version
        if self._round is None and self._is_left_behind(member, beacon, now):
            member.state = Membership.SEEN
            return self._consider(member, now)
        return self._ready(member, beacon.version, beacon.digest, now)

    def _is_left_behind(self, member: Member, beacon: Beacon, now: float) -> bool:
        """The others have applied a version, and this peer will never get what it lacks for it."""
        is_told = self._commit is not None and member.peer in self._commit.expected
        if beacon.version >= self.version or is_told:
            return False
        return now - self._applied_at > self._apply_time.patience_s(ANSWER_S, 1)

    def _consider(self, member: Member, now: float) -> list[Instruction]:
        """Admit a peer that is not a member, if it has the version or can get it."""
        beacon = member.beacon
        if beacon is None or beacon.epoch != self.epoch:
            return []
        if self.phase is Phase.PREPARING or self.version < member.barred_until:
            return []
        if self._holds_version(member.stage, beacon) or self.version == 0:
            return [self._admit(member, ())]
        if beacon.state == "leaving":
            return []
        number, norm = self._update
        if beacon.version == self.version - 1 and beacon.prepared == number >= 0:
            return [Send(member.peer, Apply(self.epoch, beacon.version, number, norm, True))]
        if self._offered == self.version:
            return [self._admit(member, (self.settings.me,))]
        return self._roll_back(now)

    def _holds_version(self, stage: int, beacon: Beacon) -> bool:
        """The very version that is trained on, not one of the same number before a rollback."""
        if beacon.version != self.version or not beacon.digest:
            return False
        known = self._digests[stage]
        return beacon.digest == known if known else beacon.applied == self._update[0] >= 0

    def _can_go_on(self, member: Member) -> bool:
        """Whether it has the version, or has prepared what leads to it."""
        beacon = member.beacon
        if beacon is None or member.barred_until > self.version:
            return False
        is_prepared = beacon.version == self.version - 1 and beacon.prepared == self._update[0] >= 0
        return self._holds_version(member.stage, beacon) or is_prepared

    def _admit(self, member: Member, donors: tuple[PeerId, ...]) -> Send:
        member.state, member.term = Membership.ADMITTED, self.members.next_term()
        member.reached, member.leaving, member.suspect = self.version, False, False
        member.doubted = False
        digest = self._digests[member.stage]
        member.admit = Admit(self.epoch, member.term, self.version, digest, *self._update, donors)
        return self._admission(member)

    def _admission(self, member: Member) -> Send:
        assert member.admit is not None
        return Send(member.peer, member.admit)

    def _ready(self, member: Member, version: int, digest: str, now: float) -> list[Instruction]:
        if member.state is not Membership.ADMITTED or version != self.version:
            return []
        member.state, member.held = Membership.READY, (version, digest)
        self._progress_at = now
        self.dispatch.window.add(member.peer)
        replicas = self.members.of_stage(member.stage, Membership.READY)
        digests = {m.held[1] for m in replicas if m.held[0] == version}
        if len(digests | ({self._digests[member.stage]} - {""})) > 1:
            return [
                self._give_up(
                    f"replicas of stage {member.stage} hold different weights at version "
                    f"{self.version}: do all run the same software?"
                )
            ]
        instructions = [_report(member), *self._welcome(member)]
        return [*instructions, *self._recover(now), *self._fill(now), *self._advance(now)]

    def _welcome(self, member: Member) -> list[Instruction]:
        """Those before it may give it work."""
        if member.state is not Membership.READY or member.leaving:
            return []
        if member.stage == 0:
            self.dispatch.wiring.add(member.peer)
            return []
        standing = Standing(self.epoch, member.stage, member.peer, True)
        return [Send(peer, standing) for peer in self.members.ready(member.stage - 1)]

    # ------------------------------------------------------------------ losing members

    def _look_after_members(self, now: float) -> list[Instruction]:
        """Suspect who is late, and fence who is very late."""
        slept_s = now - self._looked_at - HEALTH_S
        self._looked_at = now
        instructions: list[Instruction] = [StartDeadline("health", now + HEALTH_S)]
        for member in self.members:
            if slept_s > 0:
                member.health.slept(slept_s)
            instructions += self._look_after(member, now)
        return instructions

    def _look_after(self, member: Member, now: float) -> list[Instruction]:
        verdict = member.health.verdict(now)
        if member.state is Membership.SEEN:
            heard_at = member.health.heard_at
            if heard_at is not None and now - heard_at > self.settings.record_ttl_s:
                self.members.lose(member.peer)
            return []
        if verdict is Verdict.GONE:
            return self._fence(member, "it is silent, or makes no progress", now)
        if verdict is Verdict.SUSPECT and not member.suspect:
            member.suspect = True
            self.dispatch.wiring.remove(member.peer)
        return []

    def _peer_lost(self, peer: PeerId, reason: str, now: float) -> list[Instruction]:
        member = self.members.get(peer)
        if member is None:
            return []
        fenced = self._fence(member, reason, now)
        self.members.lose(peer)
        self._absent.add(peer, now)
        if self.phase is Phase.HAILING:
            return self._consider_settling(now)
        return fenced

    def _fence(self, member: Member, reason: str, now: float) -> list[Instruction]:
        """What this peer did in the step is void, and others do it."""
        if member.state is Membership.SEEN:
            return []
        others = [
            m.peer for m in self.members if m is not member and m.state is not Membership.SEEN
        ]
        member.state, member.suspect, member.leaving = Membership.SEEN, False, False
        standing = Standing(self.epoch, member.stage, member.peer, False)
        told: list[Instruction] = [Send(peer, standing) for peer in others]
        count = self.books.fence(member.peer)
        self.dispatch.lost(member.peer)
        why = f"stage {member.stage}, {member.peer}: {reason}"
        report = ReportRecovery(self.version, "fenced", count, why)
        instructions = [report, ReportPeer(member.peer, member.stage, "lost", 0, 0, 0, 0.0), *told]
        if self._round is not None and member.peer in self._round.members:
            instructions += self._void_round(why)
        if self._commit is not None and member.peer in self._commit.expected:
            self._commit.without(member.peer)
            instructions += self._close_commit(self._commit, now)
        return instructions + self._on_without(member, reason, now)

    def _on_without(self, member: Member, reason: str, now: float) -> list[Instruction]:
        if self.phase is Phase.CLOSING:
            return []
        pause: list[Instruction] = []
        if self._begun and member.stage in self.members.bare_stages():
            pause = [ReportPause(member.stage, f"{member.peer}: {reason}")]
            for other in self.members.of_stage(member.stage):
                other.barred_until = 0  # better that one than none
            if self._stopping:
                return [*pause, *self._leave("stopped; a stage has no replica left")]
        return [*pause, *self._recover(now), *self._fill(now), *self._advance(now)]

    def _leaving(self, member: Member, idle: bool, now: float) -> list[Instruction]:
        """It may drain if others stay. When it holds nothing of the step it goes."""
        is_news, member.leaving = not member.leaving, True
        replicas = self.members.of_stage(member.stage, Membership.READY)
        if not any(not replica.leaving for replica in replicas):
            return [ReportHandOver(member.stage, member.peer)] if is_news else []
        if not idle:
            self.dispatch.wiring.remove(member.peer)
            return [Send(member.peer, Drain(self.epoch))]
        if self._round is not None:
            return []  # it is still needed for its parts
        finish = Send(member.peer, Finish(f"drained at step {self.version}"))
        return [finish, *self._peer_lost(member.peer, "it has left", now)]

    # ------------------------------------------------------------------ going back, going on

    def _consider_settling(self, now: float) -> list[Instruction]:
        """A new incarnation decides once all that are seen have said what they hold."""
        answered = [m for m in self.members if m.beacon and m.beacon.epoch == self.epoch]
        counts = [sum(m.stage == stage for m in answered) for stage in range(self.num_stages)]
        if any(n < needed for n, needed in zip(counts, self._needed, strict=True)):
            return []
        if len(answered) == len(list(self.members)):
            return self._settle(now)
        if self._settling:
            return []
        self._settling = True
        return [StartDeadline("settle", now + SETTLE_S)]

    def _settle(self, now: float) -> list[Instruction]:
        if self.phase is not Phase.HAILING:
            return []
        holdings = [m.beacon for m in self.members if m.beacon and m.beacon.epoch == self.epoch]
        plan = choose_version(holdings, self.num_stages, self.version)
        self.phase = Phase.WAITING
        if plan.is_live and plan.version < self._last_version:
            self.version, self._update = plan.version, (plan.round, plan.norm)
            if self.version != self.settings.start_version:
                self._digests = ("",) * self.num_stages
            self._begin_books()
        return [i for member in self.members for i in self._consider(member, now)]

    def _roll_back(self, now: float) -> list[Instruction]:
        """The state of a stage is lost: all go back to the last checkpoint, in a new epoch."""
        bare = self.members.bare_stages()
        waiting = [m for m in self.members.in_state(Membership.SEEN) if m.beacon is not None]
        if not bare or not set(bare) <= {m.stage for m in waiting} or self._saving.under_way:
            return []
        if any(m.stage in bare and self._can_go_on(m) for m in waiting):
            return []  # it is about to
        lost_steps = self.version - self._saving.version
        self.epoch += 1
        self.version, self._digests = self._saving.version, self._saving.digests
        self._offered, self._update = (self.version or None), (-1, 0.0)
        self.phase, self._needed = Phase.WAITING, (1,) * self.num_stages
        self._round = self._commit = None
        self._agenda.clear()
        self._evaluation = Evaluation(self.version, 0)
        self._begin_books()
        self.dispatch.clear()
        reason = f"no replica of stage {', '.join(map(str, bare))} was left"
        instructions: list[Instruction] = [RaiseEpoch(self.epoch)]
        if self.version:
            instructions.append(OfferCheckpoint(self.version))
        instructions.append(ReportRollback(self.version, lost_steps, reason))
        donors = (self.settings.me,) if self.version else ()
        for member in self.members:
            self.dispatch.wiring.remove(member.peer)
            self.dispatch.window.remove(member.peer)
            if member.beacon is not None:
                instructions.append(self._admit(member, donors))
        return [*instructions, StartDeadline("waiting", now + WAITING_S)]

    # ------------------------------------------------------------------ a step

    def _advance(self, now: float) -> list[Instruction]:
        """Begin, commit or end, if it is time to."""
        if self.phase is Phase.WAITING:
            missing = zip(self.members.counts, self._needed, strict=True)
            if all(ready >= needed for ready, needed in missing):
                return self._begin(now)
            return []
        if self.phase is not Phase.TRAINING or not self._evaluation.is_complete:
            return []
        report = self._evaluation.report()
        if self.version == self._last_version:
            return [*report, *self._finish()]
        return [*report, *self._prepare(now)]

    def _begin(self, now: float) -> list[Instruction]:
        """All stages are served: feed all steps that may be open, an evaluation first."""
        if not self._begun:
            self._evaluation = self._new_evaluation()
        self._begun = True
        self._begin_books()
        self.dispatch.clear()
        for step in range(self.version, self.version + self.settings.staleness):
            self._feed(step)
        return self._open_newest(now)

    def _open_newest(self, now: float) -> list[Instruction]:
        """Another version is here: feed its evaluation, and the last step that may be open."""
        self.phase = Phase.TRAINING
        self._void_rounds = 0
        self._step_began_at = now
        self.dispatch.open(self._evaluation.pending())
        self._feed(self.version + self.settings.staleness)
        return self._fill(now) or self._advance(now)

    def _feed(self, step: int) -> None:
        """A step's microbatches, to be sent as the window allows."""
        if step < self._last_version:
            self.dispatch.open(self.books.open(step))

    def _close_step(self, step: int) -> None:
        """It is committed: the next one is the oldest that is open."""
        self.books.close(step)
        self.dispatch.drop(step)
        self._receipts.drop(step)
        if self.version not in self.books.steps:
            self.books.open(self.version)

    def _begin_books(self) -> None:
        self.books.clear()
        self.books.open(self.version)
        self._receipts.clear()
        self._void_rounds = 0

    def _new_evaluation(self) -> Evaluation:
        """Of this version: every so often, and of the last one."""
        every, is_last = self.settings.eval_every, self.version == self._last_version
        is_due = every > 0 and self._begun and self.version % every == 0
        if (is_last and not self._stopping) or (is_due and not is_last):
            return Evaluation(self.version, self.settings.eval_microbatches)
        return Evaluation(self.version, 0)

    def _fill(self, now: float) -> list[Instruction]:
        if self.phase is Phase.WAITING:
            return []
        return self.dispatch.fill(self.epoch, self._agenda, now, self._step_time.mean_s)

    def _claim(self, member: Member, claim: Claim, now: float) -> list[Instruction]:
        microbatch = claim.work.microbatch
        valid = (
            claim.epoch == self.epoch
            and member.state is Membership.READY
            and len(claim.route) == self.num_stages
            and claim.route[-1] == member.peer
        )
        ledger = self.books.of(microbatch) if valid else None
        grant = ledger.claim(claim, self.members.is_ready) if ledger is not None else None
        if grant is None:
            return [Send(member.peer, Stale(claim.work))]
        self._progress_at = now
        self.dispatch.claimed(microbatch, now)
        self._agenda.cancel(("flight", microbatch))
        self._receipts.expect(microbatch, now)
        granted = Granted(self.epoch, microbatch, grant.path, grant.need)
        return [Send(member.peer, granted), *self._recover(now)]

    def _receipt(self, member: Member, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        ledger, index = self.books.of(microbatch), microbatch.index
        if ledger is None or not ledger.receipt(member.peer, index, member.stage):
            return []
        self._progress_at = now
        self._receipts.came(microbatch, now)
        if not ledger.is_finished(index):
            self._receipts.expect(microbatch, now)
            return []
        self._receipts.finished(microbatch)
        return self._landed(microbatch, now)

    def _evaluated(self, message: Evaluated, now: float) -> list[Instruction]:
        microbatch = message.work.microbatch
        if not microbatch.held_out or microbatch.step != self.version:
            return []
        self._evaluation.add(message)
        self._progress_at = now
        return self._landed(microbatch, now)

    def _landed(self, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        self.dispatch.landed(microbatch)
        self._agenda.cancel(("flight", microbatch))
        return self._fill(now) + self._advance(now)

    # ------------------------------------------------------------------ recovery

    def _overdue(self, what: str, microbatch: MicrobatchId | None, now: float) -> list[Instruction]:
        """Ask again for what is late."""
        match what:
            case "flight" if microbatch is not None and self.dispatch.is_late(microbatch):
                report = ReportRecovery(self.version, "reattempted", 1, f"{microbatch} is late")
                return [report, *self._fill(now)]
            case "receipt" if microbatch is not None:
                return self._poke(microbatch, now)
            case "ask" if self._round is not None:
                missing, prepares = self._round.missing(), self._round.prepares()
                return [Send(peer, prepare) for peer, prepare in prepares if peer in missing]
            case "round" if self._round is not None:
                missing = self._round.missing()
                late = self._void_round(f"the reduce is late; waiting for {missing}")
                return late + self._advance(now)
            case "apply" if self._commit is not None:
                return self._apply_again(self._commit, now)
        return []

    def _poke(self, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        """Ask the owner who is next to accumulate: its gradient, or its receipt, may be lost."""
        ledger, index = self.books.of(microbatch), microbatch.index
        if ledger is None or ledger.is_finished(index):
            return []
        self._receipts.late(microbatch, now)
        grant = ledger.grant_to_owners(index)
        frontier = ledger.frontier(index)
        return [self._recover_at(peer, stage, microbatch, grant) for stage, peer in frontier]

    def _released(
        self, member: Member, microbatch: MicrobatchId, reason: str, now: float
    ) -> list[Instruction]:
        ledger = self.books.of(microbatch)
        if ledger is None or not ledger.release(member.peer, microbatch.index, member.stage):
            return []
        why = f"{microbatch} by {member.peer}: {reason}"
        return [ReportRecovery(self.version, "released", 1, why), *self._recover(now)]

    def _recover(self, now: float) -> list[Instruction]:
        """Fill vacancies: from retained frames, or by another attempt."""
        instructions: list[Instruction] = []
        recovered = reattempted = 0
        for ledger, index, stage in self.books.vacancies():
            owner = self._new_owner(stage)
            microbatch = MicrobatchId(ledger.step, index)
            if owner is None:
                continue
            if ledger.has_frames(index, stage):
                recovered += 1
                grant = ledger.assign(index, stage, owner)
                instructions.append(self._recover_at(owner, stage, microbatch, grant))
                self._receipts.expect(microbatch, now)
            else:
                reattempted += self.dispatch.again(microbatch)
        if recovered:
            report = ReportRecovery(self.version, "recovered", recovered, "from retained frames")
            instructions.append(report)
        if reattempted:
            report = ReportRecovery(self.version, "reattempted", reattempted, "frames are gone")
            instructions += [report, *self._fill(now)]
        return instructions

    def _new_owner(self, stage: int) -> PeerId | None:
        """The ready replica that owns the least of what is not done."""
        ready = self.members.of_stage(stage, Membership.READY)
        fit = [m.peer for m in ready if not m.leaving and not m.suspect] or [m.peer for m in ready]
        load = self.books.load(stage)
        return min(fit, key=lambda peer: (load.get(peer, 0), peer), default=None)

    def _recover_at(self, peer: PeerId, stage: int, microbatch: MicrobatchId, grant: Grant) -> Send:
        message = Recover(self.epoch, microbatch, grant.path, grant.need)
        return Send(peer, message, Batch(microbatch) if stage == 0 else None)

    # ------------------------------------------------------------------ commit

    def _prepare(self, now: float) -> list[Instruction]:
        """Ask every stage to reduce, once the last commit is whole."""
        if self._commit is not None or not self.ledger.complete or min(self.members.counts) == 0:
            return []
        if self._snapshot_due and self._saving.under_way:
            return []
        joining = self.members.in_state(Membership.ADMITTED)
        if any(self.version - member.reached >= MAX_BEHIND for member in joining):
            return []  # it cannot hold more of what it misses
        self.phase = Phase.PREPARING
        self._rounds += 1
        stages = range(self.num_stages)
        self._round = Round(
            self.epoch,
            self.version,
            self._rounds,
            rosters=tuple(self.ledger.roster(s, self.members.ready(s)) for s in stages),
            listeners=tuple(tuple(m.peer for m in joining if m.stage == s) for s in stages),
            tokens=self.ledger.tokens,
            began_at=now,
        )
        patience_s = self._round_time.patience_s(ROUND_S, self._void_rounds)
        self._agenda.set(("ask", None), now + ASK_AGAIN * patience_s)
        self._agenda.set(("round", None), now + patience_s)
        return [Send(peer, prepare) for peer, prepare in self._round.prepares()]

    @property
    def _snapshot_due(self) -> bool:
        newcomers = self.members.in_state(Membership.SEEN)
        return self._checkpoint_due or any(self._may_join(member) for member in newcomers)

    def _may_join(self, member: Member) -> bool:
        beacon = member.beacon
        if beacon is None or beacon.epoch != self.epoch or beacon.state == "leaving":
            return False
        return member.barred_until <= self.version + 1

    @property
    def _checkpoint_due(self) -> bool:
        """Whether the version after this step is to be saved."""
        version, every = self.version + 1, self.settings.checkpoint_every
        return version == self._last_version or (every > 0 and version % every == 0)

    def _void_round(self, reason: str) -> list[Instruction]:
        """The accumulators are still there: the round is repeated, with those that are left."""
        self._round = None
        self._void_rounds += 1
        self.phase = Phase.TRAINING
        self._agenda.cancel(("ask", None))
        self._agenda.cancel(("round", None))
        return [ReportRecovery(self.version, "void round", 1, reason)]

    def _refused(self, member: Member, message: Refused, now: float) -> list[Instruction]:
        round_ = self._round
        if round_ is None or (message.epoch, message.step, message.round) != (
            self.epoch,
            round_.step,
            round_.number,
        ):
            return []
        fenced, reason = member, message.reason
        if message.unreachable:
            other = self.members.get(message.unreachable)
            if other is None or other.peer not in round_.members:
                return []
            # A cut between two: the one with less to recover goes, until the commit is over.
            fenced = min(member, other, key=lambda m: len(self.ledger.owned_by(m.peer)))
            fenced.barred_until = self.version + 1
        return self._fence(fenced, reason, now)

    def _stage_prepared(self, sender: PeerId, message: Prepared, now: float) -> list[Instruction]:
        round_ = self._round
        if round_ is None or sender not in round_.members:
            return []
        if (message.epoch, message.step, message.round) != (
            self.epoch,
            round_.step,
            round_.number,
        ):
            return []
        round_.prepared[sender] = message
        self._progress_at = now
        return self._apply(round_, now) if round_.is_whole else []

    def _apply(self, round_: Round, now: float) -> list[Instruction]:
        """All stages are prepared: announce the global norm, and go on to the next step."""
        bad = round_.not_finite()
        if bad is not None:
            return [
                self._give_up(f"the gradient of step {self.version + 1} is not finite at {bad}")
            ]
        differing = round_.differing()
        if differing is not None:
            return [self._give_up(f"replicas of stage {differing} hold different gradients")]
        norm = round_.norm()
        if not self._void_rounds:
            self._round_time.add(now - round_.began_at)
        apply = Apply(self.epoch, self.version, round_.number, norm, self._snapshot_due)
        self._commit = Commit(
            version=self.version + 1,
            num_stages=self.num_stages,
            expected=round_.members,
            apply=apply,
            loss=self.ledger.loss,
            tokens=self.ledger.tokens,
            seconds=now - self._step_began_at,
            checkpoint=self._checkpoint_due,
        )
        sends = [Send(peer, apply) for peer in round_.audience]
        self._agenda.cancel(("ask", None))
        self._agenda.cancel(("round", None))
        self._agenda.set(("apply", None), now + self._apply_time.patience_s(ANSWER_S))
        self._applied_at, self._update = now, (round_.number, norm)
        self._step_time.add(self._commit.seconds)
        self.version = self._commit.version
        self._digests = ("",) * self.num_stages
        self._round, self._offered = None, None
        self._close_step(self.version - 1)
        self._evaluation = self._new_evaluation()
        return [*sends, *self._open_newest(now)]

    def _apply_again(self, commit: Commit, now: float) -> list[Instruction]:
        commit.retries += 1
        patience_s = self._apply_time.patience_s(ANSWER_S, commit.retries)
        self._agenda.set(("apply", None), now + patience_s)
        return [Send(peer, commit.apply) for peer in commit.missing()]

    def _applied(self, member: Member, version: int, digest: str, now: float) -> list[Instruction]:
        commit = self._commit
        member.held = (version, digest)
        if commit is None or version != commit.version or member.peer not in commit.expected:
            return []
        commit.applied[member.peer] = digest
        self._progress_at = now
        return self._close_commit(commit, now)

    def _close_commit(self, commit: Commit, now: float) -> list[Instruction]:
        """Once every live replica has applied it."""
        if not commit.is_whole:
            return []
        self._commit = None
        self._agenda.cancel(("apply", None))
        if not commit.retries:
            self._apply_time.add(now - self._applied_at)
        instructions = self._committed(commit, now)
        if self.phase is Phase.CLOSING:
            return instructions
        return [*instructions, *self._advance(now)]

    def _committed(self, commit: Commit, now: float) -> list[Instruction]:
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
            save = self._saving.begin(commit.version, self.epoch, donors, self._digests)
            instructions.append(save)
        if commit.snapshot:
            newcomers = filter(self._may_join_now, self.members.in_state(Membership.SEEN))
            instructions += [self._admit(m, donors[m.stage]) for m in newcomers]
        return instructions

    def _may_join_now(self, member: Member) -> bool:
        return self._may_join(member) and member.barred_until <= self.version

    def _checkpoint_failed(self, version: int, reason: str, now: float) -> list[Instruction]:
        """The last one is what the run was for; an earlier one is made up for by the next."""
        again = self._saving.failed(version, now)
        if again is None:
            return []
        if version == self._last_version and self._saving.failures >= SAVES:
            return [self._give_up(f"the checkpoint of step {version} failed: {reason}")]
        return [ReportCheckpointFailed(version, reason), again]

    def _save(self) -> list[Instruction]:
        """The version that is here now, from whoever has it."""
        stages = range(self.num_stages)
        replicas = [self.members.of_stage(stage, Membership.READY) for stage in stages]
        if self._saving.rests or self._saving.under_way or not all(replicas):
            return []
        digests = tuple(members[0].held[1] for members in replicas)
        donors = tuple(tuple(member.peer for member in members) for members in replicas)
        return [self._saving.begin(self.version, self.epoch, donors, digests)]

    # ------------------------------------------------------------------ the end

    def _finish(self) -> list[Instruction]:
        """The last version is applied, evaluated and saved."""
        if self._commit is not None:
            return []
        if self._saving.version != self.version:
            return self._save()
        return self._leave("the run was stopped" if self._stopping else "the run is done")

    def _stop_requested(self, reason: str, now: float) -> list[Instruction]:
        """Once: commit this step, save it, leave. Twice, or when there is nothing to commit."""
        nothing = not self._begun or bool(self.members.bare_stages())
        if self._stopping or nothing:
            return self._leave(reason)
        self._stopping = True
        if self.version < self._last_version:
            self._last_version = self.version + 1
            for step in self.books.steps[1:]:
                self.books.close(step)
                self.dispatch.drop(step)
        else:
            self._evaluation.drop()
            self.dispatch.clear()
        return self._advance(now)

    def _leave(self, reason: str) -> list[Instruction]:
        self.phase = Phase.CLOSING
        told: list[Instruction] = [Send(member.peer, Finish(reason)) for member in self.members]
        return [*told, Stop(reason, error=False)]

    def _give_up(self, reason: str) -> Stop:
        self.phase = Phase.CLOSING
        return Stop(reason, error=True)

    def _watch(self, now: float) -> list[Instruction]:
        """Nothing may wait for ever without saying why."""
        stall_s = STALL_S
        if self._step_time.samples:
            stall_s = max(STALL_S, STALL_STEPS * self._step_time.mean_s)
        waits = not self._begun or self.phase is Phase.WAITING or bool(self.members.bare_stages())
        if waits or now - self._progress_at < stall_s:
            return [StartDeadline("stall", now + stall_s / 4)]
        return [self._give_up(f"no progress for {stall_s:.0f} s; waiting for {self._awaited()}")]

    def _awaited(self) -> str:
        """For people: what the step is waiting for."""
        if self._round is not None:
            return f"PREPARED of {self._round.missing()}"
        if self._commit is not None:
            return f"APPLIED of {self._commit.missing()}"
        if self.ledger.complete:
            joining = [m.peer for m in self.members.in_state(Membership.ADMITTED)]
            return f"newcomers to load their state: {joining}"
        return f"receipts of (microbatch, stage) {self.ledger.missing()[:8]}"

    # ------------------------------------------------------------------ reports

    def _report_waiting(self, now: float) -> list[Instruction]:
        if self.phase not in (Phase.WAITING, Phase.HAILING):
            return []
        report = ReportWaiting(self.members.counts, self._needed)
        return [report, StartDeadline("waiting", now + WAITING_S)]

    # ------------------------------------------------------------------ invariants

    def validate(self) -> None:
        """What always holds between events."""
        self.books.validate()
        self.dispatch.validate()
        assert self.books.steps[0] == self.version
        assert len(self.books.steps) <= 1 + self.settings.staleness
        assert (self.phase is Phase.PREPARING) == (self._round is not None) or (
            self.phase is Phase.CLOSING
        )
        for ledger, index, stage in self.books.vacancies():
            assert ledger.grant_to_owners(index).path[stage] == NOBODY


def _report(member: Member) -> ReportPeer:
    beacon = member.beacon
    if beacon is None:
        return ReportPeer(member.peer, member.stage, str(member.state), member.reached, 0, 0, 0.0)
    return ReportPeer(
        member.peer,
        member.stage,
        str(member.state),
        beacon.version,
        beacon.queued,
        beacon.done,
        beacon.service_s,
    )
