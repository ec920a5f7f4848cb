"""The fencing of members: what becomes of who is lost, or charged with something.

Rules:
- What a fenced member did in the step is void, and others do it.
- By its own fault it is barred as well, for longer each time; who has lied is expelled.
- Who is too slow to be of use to the others is left out, and told so with the figures.
- A stage without any replica pauses the run. Then those that are barred may come, before none does.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, SeatId, peer_of
from swarmrt.messages import LeftOut, Standing, TooSlow
from swarmrt.scheduler.instructions import (
    Expel,
    Instruction,
    ReportExpelled,
    ReportPause,
    ReportPeer,
    ReportRecovery,
    Send,
    StartDeadline,
)
from swarmrt.scheduler.timing.times import REPORT_S
from swarmrt.scheduler.trainer.closing import unlike, worth
from swarmrt.scheduler.trainer.closing.comparing import LONGER
from swarmrt.scheduler.trainer.closing.strategy import Closing
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.conduct import Charge
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.wiring.replicas import Absent

_TOO_SLOW: dict[TooSlow, str] = {
    "link": "a gradient over its link",
    "state": "the state that it loads",
    "round": "a reduce with it",
    "step": "a step with it",
}


class Fencing:
    def __init__(self, run: Run, closing: Closing) -> None:
        self.absent = Absent(run.settings.record_ttl_s)
        self._run, self._closing = run, closing

    def leave_out(self, member: Member, what: TooSlow, now: float) -> list[Instruction]:
        """Go on without it for a while, and tell it why."""
        run, since = self._run, member.admitted_at
        step_s, takes_s = run.pace.step_time.mean_s, now - since
        match what:
            case "link":
                takes_s = worth.following_s(run, member)
            case "round":
                takes_s, since = now - run.pace.round_began_at, run.pace.round_began_at
                step_s = worth.step_without_s(run, member)
            case "step":
                takes_s, step_s = member.longer_s
                since = now - LONGER * takes_s
        rest_s = run.conduct.rest(member.peer, now, now - since)
        member.left_out = LeftOut(run.epoch, member.term, what, takes_s, step_s, rest_s)
        reason = f"{_TOO_SLOW[what]} takes {takes_s:.1f} s, and a step {step_s:.1f} s without it"
        return [*self.fence(member, reason, now), Send(member.peer, member.left_out)]

    def judge(self, charge: Charge, now: float) -> list[Instruction]:
        """Deal with what is held against a member."""
        run, member = self._run, self._run.members.get(charge.peer)
        if charge.kind == "lie":
            expel = Expel(charge.peer, charge.reason)
            return [expel, *self.expelled(charge.peer, charge.reason, now)]
        if member is None or member.state is Membership.SEEN:
            return []
        if charge.kind in ("slow", "longer"):
            what: TooSlow = "round" if charge.kind == "slow" else "step"
            return [] if worth.is_alone(run, member) else self.leave_out(member, what, now)
        if charge.kind == "unlike":
            run.conduct.cut(charge.peer, run.version, now)
            told = unlike.found(run, member)
            return [*told, *self.fence(member, charge.reason, now)]
        if charge.kind == "cut":
            run.conduct.cut(charge.peer, run.version, now)
        elif charge.kind == "fault":
            run.conduct.fault(charge.peer, run.version, now, charge.waited_s)
        return self.fence(member, charge.reason, now)

    def expelled(self, peer: PeerId, reason: str, now: float) -> list[Instruction]:
        """Keep a process out of this run from now on, with all of its seats; nobody hears it."""
        run, instructions = self._run, list[Instruction]()
        run.conduct.expel(peer)
        for member in run.members.of_process(peer_of(peer)):
            fenced = self.fence(member, reason, now) or [report_lost(member)]
            run.members.lose(member.peer)
            instructions += [ReportExpelled(member.peer, reason), *fenced]
        return instructions

    def lost(self, peer: SeatId, reason: str, now: float) -> list[Instruction]:
        member = self._run.members.get(peer)
        if member is None:
            return []
        fenced = self.fence(member, reason, now) or [report_lost(member)]
        self._run.members.lose(peer)
        self.absent.add(peer, now, member.health.every_s)
        self.pardon_if_bare(member.stage)
        return fenced

    def fence(self, member: Member, reason: str, now: float) -> list[Instruction]:
        """Void what this peer did in the step; others do it."""
        if member.state is Membership.SEEN:
            return []
        run = self._run
        count, told = self._end_term(member, now)
        why = f"stage {member.stage}, {member.peer}: {reason}"
        report = ReportRecovery(run.version, "fenced", count, why)
        instructions = [report, report_lost(member), *told]
        instructions += self._closing.go_on_without(member.peer, why, now)
        if run.phase is RunPhase.CLOSING:
            return instructions
        return instructions + self._pause_if_bare(member, reason, now)

    def step_back(self, member: Member, now: float) -> list[Instruction]:
        """End the term of one that has drained, and is to stand by. It has nothing of the step;
        what it was given and has not got, others do."""
        return self._end_term(member, now)[1]

    def _end_term(self, member: Member, now: float) -> tuple[int, list[Instruction]]:
        """Take nothing of this term any more, and give what it was given to others. Return how many
        (microbatch, stage) of it are void, and words to the others."""
        run = self._run
        others = [m.peer for m in run.members if m is not member and m.state is not Membership.SEEN]
        run.members.becomes(member, Membership.SEEN)
        member.suspect, member.fenced_at = False, now
        member.leaving = member.draining = member.yields = False
        standing = Standing(run.epoch, member.stage, member.peer, False)
        count = self._closing.void(member.peer)
        run.dispatch.lost(member.peer)
        if member.stage > 0:
            run.dispatch.hasten(run.agenda, now)
        return count, [Send(peer, standing) for peer in others]

    def _pause_if_bare(self, member: Member, reason: str, now: float) -> list[Instruction]:
        run = self._run
        if not run.has_begun or member.stage not in run.members.bare_stages():
            return []
        pause = ReportPause(member.stage, f"{member.peer}: {reason}")
        there = [m for m in run.members.of_stage(member.stage) if m.beacon is not None]
        for other in [m for m in there if m is not member] or there:
            run.conduct.pardon(other.peer)  # better that one than none
        if run.is_stopping:
            return [pause, *run.leave("stopped; a stage has no replica left")]
        return [pause, StartDeadline("waiting", now + REPORT_S)]

    def pardon_if_bare(self, stage: int) -> None:
        """Let whoever is left of a stage come in again: better that one than none."""
        run = self._run
        if run.has_begun and stage in run.members.bare_stages():
            for member in run.members.of_stage(stage):
                run.conduct.pardon(member.peer)


def report_lost(member: Member) -> ReportPeer:
    """Return what takes it from people's view."""
    return ReportPeer(member.peer, member.stage, "lost", 0, 0, 0, 0.0)
