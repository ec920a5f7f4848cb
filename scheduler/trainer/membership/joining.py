"""The peers that are there: what they say of themselves, and letting them in.

Rules:
- A peer is admitted when it has the current version, or can get it. A member stays at its stage.
- Weights are equal on all replicas. Known ones decide; before any are known, most of those who say
  that they are ready, or the first of them.
- A new incarnation of the trainer hails all that it sees, and decides where to go on once it knows
  what they hold.
- Newcomers get a replica's state while the others go on, follow the commits that they miss, and
  are ready when they have caught up.
- Whoever missed a message is told again, by the next beacon.
"""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Apply, Beacon, Hail, Standing
from swarmrt.scheduler.instructions import Instruction, ReportPeer, Send, StartDeadline
from swarmrt.scheduler.trainer.agreeing import odd_ones
from swarmrt.scheduler.trainer.closing.sync import SOFTWARE
from swarmrt.scheduler.trainer.closing.unlike import may_be_unlike
from swarmrt.scheduler.trainer.membership.admitting import Admitting
from swarmrt.scheduler.trainer.membership.conduct import Kind
from swarmrt.scheduler.trainer.membership.fencing import Fencing
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.resumption import Checkpointed, choose_version
from swarmrt.scheduler.trainer.rollback import Rollback
from swarmrt.scheduler.trainer.run import ANSWER_S, Phase, Run

DOUBT_S = 0.25  # half of what is between two beacons: several late ones come together
REMIND_S = 1.0  # rarely is one lost: with the link to whom it was for, who is told all then
LISTEN_S = 1.5  # without anything new of what it misses, a newcomer has missed it for good
SETTLE_S = 3.0  # for more peers to answer a hail, once there are enough


class Joining:
    def __init__(
        self, run: Run, admitting: Admitting, rollback: Rollback, fencing: Fencing
    ) -> None:
        self._run, self._admitting = run, admitting
        self._rollback, self._fencing = rollback, fencing
        self._is_settling = False
        self._said: dict[int, dict[PeerId, str]] = {}  # stage → who was ready → with which weights
        self._said_of = (-1, -1)  # epoch and version

    # ------------------------------------------------------------------ what they say

    def seen(self, stage: int, peers: tuple[PeerId, ...], now: float) -> list[Instruction]:
        """Take note of a peer that was seen in the directory."""
        run = self._run
        return [
            Send(peer, Hail(run.epoch, run.settings.fingerprint))
            for peer in self._fencing.absent.without(peers, now)
            if not run.conduct.is_expelled(peer) and run.members.see(peer, stage) is not None
        ]

    def beacon(self, sender: PeerId, beacon: Beacon, now: float) -> list[Instruction]:
        """Take a peer's word of what it is and holds."""
        run = self._run
        if not 0 <= beacon.stage < run.num_stages:
            return []
        self._fencing.absent.discard(sender)
        run.members.see(sender, beacon.stage)
        member = run.members.get(sender)
        assert member is not None
        if member.state is Membership.SEEN:
            member.stage = beacon.stage  # it may have started anew
        elif member.stage != beacon.stage:
            run.charge(sender, f"it says that it serves stage {beacon.stage}")
            return []
        is_at_work = beacon.state not in ("joining", "loading")
        member.health.beacon(now, beacon.queued if is_at_work else 0, beacon.done)
        run.dispatch.window.heard(sender, beacon.queued, beacon.service_s)
        if run.round is not None:
            run.round.says(sender, beacon.waits_for)
        self._came_on(member, beacon, now)
        member.beacon = beacon
        instructions: list[Instruction] = [_report(member)]
        if member.suspect:
            member.suspect = False
            instructions += self._admitting.welcome(member)
        if beacon.epoch > run.epoch:
            why = f"it is of epoch {beacon.epoch} of this run, which is later than this trainer's"
            instructions += self._fencing.unable(sender, beacon.stage, why, now)
        if beacon.epoch < run.epoch:
            return [*instructions, Send(sender, Hail(run.epoch, run.settings.fingerprint))]
        return instructions + self._reconcile(member, beacon, now)

    def _came_on(self, member: Member, beacon: Beacon, now: float) -> None:
        """Note that a newcomer has more of what it lacks than by its last beacon."""
        last = member.beacon
        if last is None or (last.moved_bytes, last.version) != (beacon.moved_bytes, beacon.version):
            member.came_on_at = now

    def _reconcile(self, member: Member, beacon: Beacon, now: float) -> list[Instruction]:
        """Bring what the trainer thinks of a peer and what it says of itself together."""
        if self._run.phase is Phase.HAILING:
            return []
        is_here = beacon.term == member.term and beacon.state != "joining"
        if is_here:
            member.doubted_at = None
        elif member.doubted_at is None:
            member.doubted_at = now
        match member.state:
            case Membership.SEEN if member.left_out is not None and is_here:
                return [Send(member.peer, member.left_out)]  # it has not heard of it
            case Membership.SEEN:
                return self._consider(member, now)
            case Membership.READY if member.doubted_at is not None:
                if now - member.doubted_at < DOUBT_S:
                    return []  # it may have left before the admission, and come by another way
                return self._fence(member, "it has voided its work", now)
            case Membership.READY if self._is_left_behind(member, beacon, now):
                return self._fence(
                    member, f"it missed the commit of version {self._run.version}", now
                )
            case Membership.READY:
                return [*self._ask_again(member, now), *self._remind(member, now)]
            case Membership.ADMITTED if beacon.term < member.term:
                return [self._admitting.tell(member)]
            case Membership.ADMITTED if not is_here:  # it could not get the state
                member.state = Membership.SEEN
                return self._consider(member, now)
            case Membership.ADMITTED if beacon.state == "serving":
                return self._has_caught_up(member, beacon, now)
        return []

    def _ask_again(self, member: Member, now: float) -> list[Instruction]:
        """Give it once more what it was given and has not answered: it is heard."""
        if member.stage != 0:
            return []
        run, beats = self._run, member.health.beacons
        return [*run.dispatch.unanswered(member.peer, run.epoch, beats, now)]

    def _fence(self, member: Member, reason: str, now: float) -> list[Instruction]:
        """Fence it. It may come again, in another term."""
        return self._fencing.fence(member, reason, now) + self._consider(member, now)

    def _has_caught_up(self, member: Member, beacon: Beacon, now: float) -> list[Instruction]:
        """A newcomer that missed a part of a commit never will: it gets the state once more."""
        member.reached = beacon.version
        since = max(member.came_on_at, self._run.applied_at)
        tries = 3 if beacon.prepared >= 0 else 1  # it may be at work, on a slower device
        patience_s = max(LISTEN_S, self._run.apply_time.patience_s(ANSWER_S, tries))
        if now - since > patience_s and self._is_left_behind(member, beacon, now):
            member.state = Membership.SEEN
            return self._consider(member, now)
        return self.ready(member, beacon.version, beacon.digest, now)

    def _is_left_behind(self, member: Member, beacon: Beacon, now: float) -> bool:
        """The others have applied a version, and this peer will never get what it lacks for it."""
        run = self._run
        is_told = run.commit is not None and member.peer in run.commit.expected
        if beacon.version >= run.version or is_told:
            return False
        return now - run.applied_at > run.apply_time.patience_s(ANSWER_S, 1)

    # ------------------------------------------------------------------ letting them in

    def _consider(self, member: Member, now: float) -> list[Instruction]:
        """Admit a peer that is not a member, if it has the version or can get it."""
        run, beacon = self._run, member.beacon
        if beacon is None or beacon.epoch != run.epoch:
            return []
        is_barred = run.conduct.is_barred(member.peer, run.version, now)
        if run.phase in (Phase.PREPARING, Phase.CLOSING) or is_barred:
            return []
        if self._admitting.is_stuck(member, now):
            return []
        if self._admitting.holds_version(member.stage, beacon) or run.version == 0:
            return [self._admitting.admit(member, (), now)]
        number, norm = run.update
        if beacon.version == run.version - 1 and beacon.prepared == number >= 0:
            return [Send(member.peer, Apply(run.epoch, beacon.version, number, norm, True))]
        if beacon.state == "leaving":
            return []
        if run.offered == run.version:
            return [self._admitting.admit(member, (run.settings.me,), now)]
        return self._rollback.consider(now)

    def ready(self, member: Member, version: int, digest: str, now: float) -> list[Instruction]:
        """Give it work once it has the version of the others."""
        if member.state is not Membership.ADMITTED:
            return []
        member.reached, member.held = max(version, member.reached), (version, digest)
        return self._let_in(member, now)

    def let_in(self, now: float) -> list[Instruction]:
        """Let in whoever has come to the version that the others work on."""
        if self._run.phase not in (Phase.TRAINING, Phase.PREPARING):
            return []
        admitted = self._run.members.in_state(Membership.ADMITTED)
        return [instruction for member in admitted for instruction in self._let_in(member, now)]

    def followed(self, member: Member, version: int, digest: str, now: float) -> list[Instruction]:
        """Hear that a newcomer has applied what the others have, since its admission."""
        if member.admit is None or not member.admit.version < version <= self._run.version:
            return []
        return self.ready(member, version, digest, now)

    def _let_in(self, member: Member, now: float) -> list[Instruction]:
        run, (version, digest) = self._run, member.held
        if version != run.version or run.round is not None or run.commit is not None:
            return []  # it is let in between commits: from then on it is waited for in them
        if not self._has_the_weights(member, digest):
            return []
        if member.admit is not None and member.admit.donors:
            run.load_time.add(now - member.admitted_at)
        member.state, member.doubted_at, member.ready_at = Membership.READY, None, now
        run.unable.discard(member.peer)
        if not run.has_others(member.peer, member.stage):
            # Another newcomer helps no step that hangs.
            run.came((member.stage, "ready"), now)
        run.dispatch.window.add(member.peer)
        introductions = [self._vouch(other, member) for other in self._neighbours(member)]
        return [_report(member), *self._admitting.welcome(member), *introductions]

    def _has_the_weights(self, member: Member, digest: str) -> bool:
        """Return whether it has those of the others. Whoever has not is charged with it."""
        run, stage = self._run, member.stage
        known = run.digests[stage]
        words = self._words_of(stage)
        words[member.peer] = digest
        odd = odd_ones(words, self._trust_in_ready, known or None)
        reason = f"its weights of version {run.version} are not those of the other replicas"
        for peer in odd:
            run.charge(peer, f"{reason}: {SOFTWARE}", self._kind_of_charge(peer, known))
        for peer in set(words) - set(odd):
            run.conduct.pardon(peer)
        return member.peer not in odd

    def _words_of(self, stage: int) -> dict[PeerId, str]:
        """Return what those of the stage who are still there have said of this version's
        weights."""
        run = self._run
        if self._said_of != run.current:
            self._said, self._said_of = {}, run.current
        there = {
            peer: digest
            for peer, digest in self._said.get(stage, {}).items()
            if run.members.get(peer) is not None
        }
        self._said[stage] = there
        return there

    def _trust_in_ready(self, peer: PeerId) -> tuple[bool, tuple[int, int, PeerId]]:
        run = self._run
        is_ready = any(run.members.is_ready(peer, stage) for stage in range(run.num_stages))
        return not is_ready, run.trust(peer)

    def _kind_of_charge(self, peer: PeerId, known: str) -> Kind:
        """Return the kind of charge. Whoever contradicts a second time what its admission names has
        lied: with a state of other weights it would have said that it has none."""
        member = self._run.members.get(peer)
        if member is not None and may_be_unlike(self._run, member):
            return "unlike"
        if not known or member is None or member.admit is None or member.admit.digest != known:
            return "fault"
        return "lie" if self._run.conduct.contradicts(peer) > 1 else "fault"

    def _neighbours(self, member: Member) -> list[Member]:
        """Replicas that it may give work to or take work from. One that wants to leave serves on
        while there is no other."""
        members = self._run.members
        before = members.of_stage(member.stage - 1, Membership.READY)
        after = members.of_stage(member.stage + 1, Membership.READY)
        return [*before, *([other for other in after if not other.leaving] or after)]

    def _vouch(self, member: Member, to: Member) -> Send:
        return Send(to.peer, Standing(self._run.epoch, member.stage, member.peer, True))

    def _remind(self, member: Member, now: float) -> list[Instruction]:
        """Say again what was lost of such words: one of them every so often, in turn."""
        if now - member.reminded_at < REMIND_S:
            return []
        member.reminded_at = now
        neighbours = self._neighbours(member)
        if not neighbours:
            return []
        member.reminders += 1
        return [self._vouch(neighbours[member.reminders % len(neighbours)], member)]

    # ------------------------------------------------------------------ a new incarnation

    def settle_if_known(self, now: float) -> list[Instruction]:
        """Decide once all that are seen have said what they hold."""
        run = self._run
        answered = [m for m in run.members if m.beacon and m.beacon.epoch == run.epoch]
        counts = [sum(m.stage == stage for m in answered) for stage in range(run.num_stages)]
        if any(n < needed for n, needed in zip(counts, run.needed, strict=True)):
            return []
        if len(answered) == len(list(run.members)):
            return self.settle(now)
        if self._is_settling:
            return []
        self._is_settling = True
        return [StartDeadline("settle", now + SETTLE_S)]

    def settle(self, now: float) -> list[Instruction]:
        """Go on from what they hold, or from the checkpoint."""
        run = self._run
        if run.phase is not Phase.HAILING:
            return []
        holdings = [m.beacon for m in run.members if m.beacon and m.beacon.epoch == run.epoch]
        checkpoint = Checkpointed(run.version, run.digests, run.settings.checkpoint_every)
        plan = choose_version(holdings, checkpoint, run.epoch, run.last_version)
        run.phase = Phase.WAITING
        if plan.is_live:
            run.version, run.update = plan.version, (plan.round, plan.norm)
            if run.version != run.settings.start_version:
                run.digests = plan.digests
            run.begin_books()
        return [i for member in run.members for i in self._consider(member, now)]


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
