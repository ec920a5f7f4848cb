"""The draining of members that want to leave in peace, or are wanted at another stage.

Rules:
- Who wants to leave drains while others serve its stage, and serves again when they are lost.
- Who is alone stays until another one can take over, however long that takes. Where a spare is
  there, that is at once.
- A spare goes at once, where others serve.
- Who yields, because its process serves elsewhere, drains as well, and then stands by.
"""

from __future__ import annotations

from swarmrt.messages import Drain, Finish, Leaving
from swarmrt.scheduler.instructions import Instruction, ReportHandOver, Send
from swarmrt.scheduler.trainer.membership.fencing.fencing import Fencing
from swarmrt.scheduler.trainer.membership.joining import spares
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting, report
from swarmrt.scheduler.trainer.membership.joining.introducing import welcome
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run

HAS_LEFT = "it has left"  # of its own will


class Draining:
    def __init__(self, run: Run, admitting: Admitting, fencing: Fencing) -> None:
        self._run, self._admitting, self._fencing = run, admitting, fencing

    def leaving(self, member: Member, word: Leaving, now: float) -> list[Instruction]:
        """Let it drain if others stay, or if nothing is trained yet that they would need of it.

        When it holds nothing of the step it goes.
        """
        run, idle = self._run, word.idle
        if word.stays:
            return self._yields(member, now, idle=idle)
        is_news, member.leaving = not member.leaving, True
        nothing_is_trained = run.version == 0 and not run.has_begun
        if member.is_spare and run.members.ready(member.stage):
            return self._let_go(member, now)
        if not self._others_stay(member.stage) and not nothing_is_trained:
            is_news = (is_news or member.draining) and not spares.is_there(run, member.stage)
            report = [ReportHandOver(member.stage, member.peer)] if is_news else []
            return [*report, *self._stays(member)]
        if not idle:
            member.draining = True
            run.dispatch.wiring.remove(member.peer)
            return [Send(member.peer, Drain(run.epoch))]
        if run.round is not None:
            return []  # the round needs it
        return self._let_go(member, now)

    def ask_to_yield(self, member: Member) -> list[Instruction]:
        """Have a replica drain and stand by, while others stay at its stage."""
        if member.leaving or not self._others_stay(member.stage, beside=member):
            return []
        member.leaving = member.draining = member.yields = True
        spares.note_moved(self._run, member.stage)
        self._run.dispatch.wiring.remove(member.peer)
        return [Send(member.peer, Drain(self._run.epoch))]

    def take_back(self, member: Member) -> list[Instruction]:
        """Let one that yields serve on."""
        member.leaving = member.yields = False
        return self._stays(member)

    def _yields(self, member: Member, now: float, *, idle: bool) -> list[Instruction]:
        """Let one that has drained stand by, once no commit needs it."""
        run = self._run
        if not member.yields:
            return self._stays(member)
        if not self._others_stay(member.stage):
            return self.take_back(member)
        if not idle or run.round is not None or run.commit is not None:
            return []
        told = self._fencing.step_back(member, now)
        admit = self._admitting.admit(member, (), now)
        return [*told, report(member), admit]

    def _let_go(self, member: Member, now: float) -> list[Instruction]:
        finish = Send(member.peer, Finish(f"drained at step {self._run.version}"))
        return [finish, *self._fencing.lost(member.peer, HAS_LEFT, now)]

    def _others_stay(self, stage: int, beside: Member | None = None) -> bool:
        """Return whether the stage is served by one that does not want to leave, and is heard."""
        ready = self._run.members.of_stage(stage, Membership.READY)
        return any(not r.leaving and not r.suspect and r is not beside for r in ready)

    def _stays(self, member: Member) -> list[Instruction]:
        """Let it serve as before. It is said each time that it wants to go: an earlier word may
        come late."""
        was_draining, member.draining = member.draining, False
        back: list[Instruction] = [Send(member.peer, Drain(self._run.epoch, True))]
        return [*back, *welcome(self._run, member)] if was_draining else back
