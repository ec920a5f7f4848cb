"""The peers that are there: what they say of themselves, against what the trainer thinks of them.

Rules:
- A new incarnation of the trainer hails all that it sees.
- A member stays at its stage.
- Whoever missed a message is told again, by the next beacon.
- Whom its owner has paused is done without until it says otherwise.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, SeatId
from swarmrt.messages import Beacon, Hail
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.scheduler.timing.times import ANSWER_S, DOUBT_S, LISTEN_S
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.fencing.departures import Departures
from swarmrt.scheduler.trainer.membership.fencing.fencing import Fencing
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting, report
from swarmrt.scheduler.trainer.membership.joining.introducing import remind, welcome
from swarmrt.scheduler.trainer.membership.joining.letting_in import LettingIn
from swarmrt.scheduler.trainer.membership.joining.timekeeping import is_too_much, keep_time
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run


class Beacons:
    def __init__(
        self,
        run: Run,
        admitting: Admitting,
        letting_in: LettingIn,
        fencing: Fencing,
        departures: Departures,
    ) -> None:
        self._run, self._admitting, self._letting_in = run, admitting, letting_in
        self._fencing, self._departures = fencing, departures

    def seen(self, stage: int, peers: tuple[SeatId, ...], now: float) -> list[Instruction]:
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
            run.members.is_at(member, beacon.stage)  # it may have started anew
        elif member.stage != beacon.stage:
            run.charge(sender, f"it says that it serves stage {beacon.stage}")
            return []
        if is_too_much(member, now):
            return []
        is_at_work = beacon.state not in ("joining", "loading")
        if member.beacon is None:
            self._departures.heard_first(sender, beacon)
        queued = beacon.queued if is_at_work else 0
        member.health.beacon(now, queued, beacon.done, member.believed_s(beacon))
        run.dispatch.window.heard(sender, beacon.queued, beacon.service_s)
        if run.round is not None:
            run.round.says(sender, beacon.waits_for)
        self._came_on(member, beacon, now)
        member.beacon = beacon
        instructions: list[Instruction] = [report(member)]
        if member.suspect:
            member.suspect = False
            instructions += welcome(run, member)
        if beacon.epoch > run.epoch:
            why = f"it is of epoch {beacon.epoch} of this run, which is later than this trainer's"
            instructions += self._departures.unable(sender, beacon.stage, why, now)
        if beacon.epoch < run.epoch:
            return [*instructions, Send(sender, Hail(run.epoch, run.settings.fingerprint))]
        if beacon.epoch == run.epoch:
            instructions += keep_time(run, member, beacon, now)
        return instructions + self._reconcile(member, beacon, now)

    def _came_on(self, member: Member, beacon: Beacon, now: float) -> None:
        """Note that a newcomer has more of what it lacks than by its last beacon."""
        last = member.beacon
        if last is None or (last.moved_bytes, last.version) != (beacon.moved_bytes, beacon.version):
            member.came_on_at = now

    def _reconcile(self, member: Member, beacon: Beacon, now: float) -> list[Instruction]:
        """Reconcile what the trainer thinks of a peer with what it says of itself."""
        if self._run.phase is RunPhase.HAILING:
            return []
        is_here = beacon.term == member.term and beacon.state != "joining"
        if beacon.paused:
            return self._fencing.fence(member, "its owner has paused it", now)
        if is_here:
            member.doubted_at = None
        elif member.doubted_at is None:
            member.doubted_at = now
        has_followed = member.admit is not None and member.reached > member.admit.version
        match member.state:
            case Membership.SEEN if member.left_out is not None and is_here:
                return [Send(member.peer, member.left_out)]  # it has not heard of it
            case Membership.SEEN:
                return self._letting_in.consider(member, now)
            case Membership.READY if member.doubted_at is not None:
                if now - member.doubted_at < DOUBT_S:
                    return []  # it may have left before the admission, and come by another way
                return self._fence(member, "it has voided its work", now)
            case Membership.READY if self._is_left_behind(member, beacon, now):
                return self._fence(
                    member, f"it missed the commit of version {self._run.version}", now
                )
            case Membership.READY:
                return [*self._ask_again(member, now), *remind(self._run, member, now)]
            case Membership.ADMITTED if beacon.term < member.term and has_followed:
                self._run.members.becomes(member, Membership.SEEN)  # and what came of it is void
                return self._letting_in.consider(member, now)
            case Membership.ADMITTED if beacon.term < member.term:
                return [self._admitting.tell(member)]
            case Membership.ADMITTED if not is_here:  # it could not get the state
                self._run.members.becomes(member, Membership.SEEN)
                return self._letting_in.consider(member, now)
            case Membership.ADMITTED if beacon.state in ("serving", "leaving"):
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
        return self._fencing.fence(member, reason, now) + self._letting_in.consider(member, now)

    def _has_caught_up(self, member: Member, beacon: Beacon, now: float) -> list[Instruction]:
        """Let a newcomer in that has caught up. One that has missed what leads to a version gets
        the state once more."""
        member.reached = beacon.version
        since = max(member.came_on_at, self._run.pace.applied_at)
        tries = 3 if beacon.prepared >= 0 else 1  # it may be at work, on a slower device
        patience_s = max(LISTEN_S, self._run.pace.apply_time.patience_s(ANSWER_S, tries))
        if now - since > patience_s and self._is_left_behind(member, beacon, now):
            self._run.members.becomes(member, Membership.SEEN)
            return self._letting_in.consider(member, now)
        return self._letting_in.ready(member, beacon.version, beacon.digest, now)

    def _is_left_behind(self, member: Member, beacon: Beacon, now: float) -> bool:
        """The others have applied a version, and this peer will never get what it lacks for it."""
        run = self._run
        is_told = run.commit is not None and member.peer in run.commit.expected
        named, _ = member.named_weights  # since this beacon, which datagrams may make late
        reached = max(beacon.version, named)
        if reached >= run.version or is_told:
            return False
        return now - run.pace.applied_at > run.pace.apply_time.patience_s(ANSWER_S, 1)
