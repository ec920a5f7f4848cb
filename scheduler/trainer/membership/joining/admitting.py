"""The admission of peers: what a peer must have to take part, and how it is told.

Rules:
- The version that counts is the one that is trained on, not one of the same number from before a
  rollback: it is known by its digest, or by the round that made it.
- Each admission has a term of its own. What a peer did in an earlier one is void.
- Whose computation hangs is not let in again before it gets on.
"""

from __future__ import annotations

from swarmrt.ids import NO_ISLAND, SeatId
from swarmrt.messages import Admit, Beacon
from swarmrt.scheduler.instructions import ReportPeer, Send
from swarmrt.scheduler.timing.times import COMPUTATION_S
from swarmrt.scheduler.trainer.membership.health import Verdict
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run


class Admitting:
    def __init__(self, run: Run) -> None:
        self._run = run

    def admit(self, member: Member, donors: tuple[SeatId, ...], now: float) -> Send:
        """Let it take part, with the state that it has or that a donor gives it."""
        run = self._run
        run.members.becomes(member, Membership.ADMITTED)
        member.term = run.members.next_term()
        member.reached, member.suspect = run.version, False
        member.leaving = member.draining = member.yields = False
        member.named_weights, member.agreed = (-1, ""), None
        member.most_served = max(member.most_served, len(run.members.ready(member.stage)))
        member.doubted_at, member.admitted_at, member.came_on_at = None, now, now
        member.times_held_for, member.dear, member.left_out = 0, 0, None
        member.wished = member.beacon.island if member.beacon is not None else NO_ISLAND
        member.step_before_s = run.pace.step_time.mean_s
        digest = run.digests[member.stage]
        key = run.key_of(member.peer)
        member.key = bytes.fromhex(key)
        member.admit = Admit(run.epoch, member.term, run.version, digest, *run.update, donors, key)
        return self.tell(member)

    def tell(self, member: Member) -> Send:
        """Return the message of its newest admission, the first time or again."""
        assert member.admit is not None
        return Send(member.peer, member.admit)

    def holds_version(self, stage: int, beacon: Beacon) -> bool:
        run = self._run
        if beacon.version != run.version or not beacon.digest:
            return False
        known = run.digests[stage]
        return beacon.digest == known if known else beacon.applied == run.update[0] >= 0

    def could_serve(self, member: Member) -> bool:
        """Return whether it is here, and holds the version."""
        beacon = member.beacon
        if beacon is None or beacon.epoch != self._run.epoch or beacon.paused:
            return False
        return self._run.version == 0 or self.holds_version(member.stage, beacon)

    def verdict(self, member: Member, now: float) -> Verdict:
        """Judge its health. A computation takes no longer than it says, and than a step; before a
        step was timed here, what it says may be of short ones alone."""
        step_s = self._run.pace.step_time.mean_s
        said_s = member.beacon.service_s if member.beacon is not None else 0.0
        said_at = now - self._run.own_link.delay_s
        if not step_s and said_s:
            return member.health.verdict(said_at, max(said_s, COMPUTATION_S))
        return member.health.verdict(said_at, min(said_s or step_s, step_s))

    def is_stuck(self, member: Member, now: float) -> bool:
        """Return whether it has work and gets on with none: it would be fenced again at once."""
        return self.verdict(member, now) is Verdict.GONE

    def can_go_on(self, member: Member, now: float) -> bool:
        """Return whether it has the version, or has prepared what leads to it."""
        run, beacon = self._run, member.beacon
        if beacon is None or run.conduct.is_barred(member.peer, run.version, now):
            return False
        is_prepared = beacon.version == run.version - 1 and beacon.prepared == run.update[0] >= 0
        return self.holds_version(member.stage, beacon) or is_prepared

    def may_join(self, member: Member, version: int, now: float) -> bool:
        """Return whether it is a newcomer that could get the state of that version."""
        beacon = member.beacon
        if beacon is None or beacon.epoch != self._run.epoch:
            return False
        if beacon.state == "leaving" or beacon.paused:
            return False
        is_barred = self._run.conduct.is_barred(member.peer, version, now)
        return not is_barred and not self.is_stuck(member, now)


def report(member: Member) -> ReportPeer:
    """Return what people are shown of a member."""
    beacon = member.beacon
    if beacon is None:
        return ReportPeer(member.peer, member.stage, str(member.state), member.reached, 0, 0, 0.0)
    follows = member.state is Membership.ADMITTED and beacon.state == "serving"
    state = "yielding" if member.yields else str(member.state)
    state = "paused" if beacon.paused and member.state is Membership.SEEN else state
    return ReportPeer(
        member.peer,
        member.stage,
        "spare" if member.is_spare and follows else state,
        beacon.version,
        beacon.queued,
        beacon.done,
        beacon.service_s,
    )
