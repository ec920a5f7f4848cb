"""The watch over members: who is late, and for how long that is worth waiting.

Rules:
- A suspect gets nothing new. Who is silent for longer, or makes no progress, is fenced once that is
  cheaper than waiting for it (`price`).
- Whoever hears nobody at all has lost its own link. That is held against nobody.
- A newcomer of a stage that has nobody else has to load its state in the time that it took others,
  and in twice as long each time, if there is another one that could. It has longer while it comes.
- A newcomer that cannot keep up is left out.
"""

from __future__ import annotations

from swarmrt.messages import TooSlow
from swarmrt.scheduler.instructions import Instruction, StartDeadline
from swarmrt.scheduler.timing.times import HEALTH_S, LOAD_S
from swarmrt.scheduler.trainer.closing import worth
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.fencing.fencing import Fencing, report_lost
from swarmrt.scheduler.trainer.membership.health import Verdict
from swarmrt.scheduler.trainer.membership.joining import spares
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting
from swarmrt.scheduler.trainer.membership.joining.timekeeping import keep_watching
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.membership.price import redo_s
from swarmrt.scheduler.trainer.run import Run

WHILE_IT_COMES = 16  # times as long a state may take of which bytes still come
SILENT_BEATS = 6  # intervals without a beacon, and who takes no part is forgotten


class Watching:
    def __init__(self, run: Run, admitting: Admitting, fencing: Fencing) -> None:
        self._run, self._admitting, self._fencing = run, admitting, fencing
        self._looked_at = 0.0
        self.looks_by = HEALTH_S  # at members again: later, this process has stood still

    def start(self, now: float) -> StartDeadline:
        self.looks_by = now + HEALTH_S
        return StartDeadline("health", self.looks_by)

    def look_after_members(self, now: float) -> list[Instruction]:
        """Suspect who is late, and fence who is very late."""
        self.notice_sleep(now)
        self._run.own_link.look(now)
        instructions: list[Instruction] = [self.start(now)]
        if self._hears_nobody(now):
            return instructions
        instructions += [report_lost(member) for member in self._run.members.take_forgotten()]
        for member in self._run.members:
            instructions += self._look_after(member, now)
        return instructions

    def _hears_nobody(self, now: float) -> bool:
        """Return whether all are silent at once, which is held against none of them. One alone is
        silent by itself."""
        run, quiet_s, self._looked_at = self._run, now - self._looked_at, now
        heard = [m.health for m in run.members if m.health.heard_at is not None]
        run.own_link.hears_nobody = len(heard) > 1 and all(h.misses_beats(now) for h in heard)
        if run.own_link.hears_nobody:
            for health in heard:
                health.slept(quiet_s, now)
        return run.own_link.hears_nobody

    def notice_sleep(self, now: float) -> None:
        """Hold against nobody that this process stood still. Call it before anything is made of
        what has come meanwhile."""
        slept_s = now - self.looks_by
        if slept_s <= 0:
            return
        for member in self._run.members:
            member.health.slept(slept_s, now)
        self.looks_by = now

    def _look_after(self, member: Member, now: float) -> list[Instruction]:
        run = self._run
        verdict = self._admitting.verdict(member, now)
        if member.state is Membership.SEEN:
            heard_at = member.health.heard_at
            silent_s = max(run.settings.record_ttl_s, SILENT_BEATS * member.health.every_s)
            if heard_at is None or now - heard_at <= silent_s:
                return []
            run.members.lose(member.peer)
            self._fencing.pardon_if_bare(member.stage)
            return [report_lost(member)]
        if verdict is Verdict.GONE and self._is_too_dear(member, now):
            return self._fencing.fence(member, "it is silent, or makes no progress", now)
        if member.state is Membership.ADMITTED and self._is_waited_for(member, now):
            waited_s = now - member.admitted_at
            reason = f"it has not loaded its state in {waited_s:.0f} s, and others wait"
            run.conduct.fault(member.peer, run.version, now, waited_s=waited_s)
            return self._fencing.fence(member, reason, now)
        too_slow = self._is_too_slow(member)
        if too_slow is not None:
            return self._fencing.leave_out(member, too_slow, now)
        if verdict is not Verdict.FINE and not member.suspect:
            member.suspect = True
            run.dispatch.wiring.remove(member.peer)
        return keep_watching(run, member, now)

    def _is_too_dear(self, member: Member, now: float) -> bool:
        """Return whether waiting for it costs more than doing its work again. Who is alone and is
        heard is waited for: nobody could do that work."""
        said_at = now - self._run.own_link.delay_s
        others = self._run.has_others(member.peer, member.stage)
        alone = not others and not spares.is_there(self._run, member.stage)
        if alone and member.state is Membership.READY and not member.health.is_silent(said_at):
            return False
        return member.health.late_s(said_at) > redo_s(self._run, member)

    def _is_waited_for(self, newcomer: Member, now: float) -> bool:
        """Return whether the run cannot go on before it has its state, and has waited for long."""
        run = self._run
        if run.phase is not RunPhase.TRAINING or run.members.ready(newcomer.stage):
            return False
        if newcomer.is_spare and newcomer.agreed is not None:
            return False  # it has had it for long, and follows
        patience_s = run.pace.load_time.patience_s(LOAD_S, run.conduct.faults(newcomer.peer))
        waited_s = now - newcomer.admitted_at
        if waited_s <= patience_s:
            return False
        comes = now - newcomer.came_on_at <= patience_s + newcomer.health.lag_s
        return not comes or waited_s > WHILE_IT_COMES * patience_s

    def _is_too_slow(self, newcomer: Member) -> TooSlow | None:
        """Return why a newcomer will never be of use to the others, as things are; or None."""
        run = self._run
        if newcomer.state is not Membership.ADMITTED or worth.is_alone(run, newcomer):
            return None
        if worth.is_link_too_slow(run, newcomer):
            return "link"
        return "state" if worth.is_too_far_behind(run, newcomer) else None
