"""Losing members: who is late, who is gone, who leaves in peace.

Rules:
- A suspect gets nothing new. Who is silent for longer, or makes no progress, is fenced: what it did
  in the step is void, and others do it.
- A stage without any replica pauses the run.
"""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Drain, Finish, Standing
from swarmrt.scheduler.committing import Committing
from swarmrt.scheduler.health import Verdict
from swarmrt.scheduler.instructions import (
    Instruction,
    ReportHandOver,
    ReportPause,
    ReportPeer,
    ReportRecovery,
    Send,
    StartDeadline,
)
from swarmrt.scheduler.membership import Member, Membership
from swarmrt.scheduler.replicas import Absent
from swarmrt.scheduler.run import Phase, Run

HEALTH_S = 0.25  # between looks at who is late


class Fencing:
    def __init__(self, run: Run, committing: Committing) -> None:
        self.absent = Absent(run.settings.record_ttl_s)
        self._run, self._committing = run, committing
        self._looked_at = 0.0

    def start(self, now: float) -> StartDeadline:
        self._looked_at = now
        return StartDeadline("health", now + HEALTH_S)

    def look_after_members(self, now: float) -> list[Instruction]:
        """Suspect who is late, and fence who is very late."""
        slept_s = now - self._looked_at - HEALTH_S
        instructions: list[Instruction] = [self.start(now)]
        for member in self._run.members:
            if slept_s > 0:
                member.health.slept(slept_s)
            instructions += self._look_after(member, now)
        return instructions

    def _look_after(self, member: Member, now: float) -> list[Instruction]:
        run, verdict = self._run, member.health.verdict(now)
        if member.state is Membership.SEEN:
            heard_at = member.health.heard_at
            if heard_at is not None and now - heard_at > run.settings.record_ttl_s:
                run.members.lose(member.peer)
            return []
        if verdict is Verdict.GONE:
            return self.fence(member, "it is silent, or makes no progress", now)
        if verdict is Verdict.SUSPECT and not member.suspect:
            member.suspect = True
            run.dispatch.wiring.remove(member.peer)
        return []

    def lost(self, peer: PeerId, reason: str, now: float) -> list[Instruction]:
        member = self._run.members.get(peer)
        if member is None:
            return []
        fenced = self.fence(member, reason, now)
        self._run.members.lose(peer)
        self.absent.add(peer, now)
        return fenced

    def fence(self, member: Member, reason: str, now: float) -> list[Instruction]:
        """What this peer did in the step is void, and others do it."""
        if member.state is Membership.SEEN:
            return []
        run = self._run
        others = [m.peer for m in run.members if m is not member and m.state is not Membership.SEEN]
        member.state, member.suspect, member.leaving = Membership.SEEN, False, False
        standing = Standing(run.epoch, member.stage, member.peer, False)
        told: list[Instruction] = [Send(peer, standing) for peer in others]
        count = run.books.fence(member.peer)
        run.dispatch.lost(member.peer)
        why = f"stage {member.stage}, {member.peer}: {reason}"
        report = ReportRecovery(run.version, "fenced", count, why)
        instructions = [report, ReportPeer(member.peer, member.stage, "lost", 0, 0, 0, 0.0), *told]
        instructions += self._committing.go_on_without(member.peer, why, now)
        if run.phase is Phase.CLOSING:
            return instructions
        return instructions + self._pause_if_bare(member, reason)

    def _pause_if_bare(self, member: Member, reason: str) -> list[Instruction]:
        run = self._run
        if not run.has_begun or member.stage not in run.members.bare_stages():
            return []
        pause = ReportPause(member.stage, f"{member.peer}: {reason}")
        for other in run.members.of_stage(member.stage):
            other.barred_until = 0  # better that one than none
        if run.is_stopping:
            return [pause, *run.leave("stopped; a stage has no replica left")]
        return [pause]

    def leaving(self, member: Member, idle: bool, now: float) -> list[Instruction]:
        """It may drain if others stay. When it holds nothing of the step it goes."""
        run = self._run
        is_news, member.leaving = not member.leaving, True
        replicas = run.members.of_stage(member.stage, Membership.READY)
        if not any(not replica.leaving for replica in replicas):
            return [ReportHandOver(member.stage, member.peer)] if is_news else []
        if not idle:
            run.dispatch.wiring.remove(member.peer)
            return [Send(member.peer, Drain(run.epoch))]
        if run.round is not None:
            return []  # it is still needed for its parts
        finish = Send(member.peer, Finish(f"drained at step {run.version}"))
        return [finish, *self.lost(member.peer, "it has left", now)]
