"""Losing members: who is late, who is gone, who leaves in peace.

Rules:
- A suspect gets nothing new. Who is silent for longer, or makes no progress, is fenced once that is
  cheaper than waiting for it (`price`): what it did in the step is void, and others do it.
- Whoever hears nobody at all has lost its own link. That is held against nobody.
- So is a member that is charged with something. By its own fault it is barred as well, for longer
  each time; who has lied is expelled.
- A newcomer of a stage that has nobody else has to load its state in the time that it took others,
  and in twice as long each time, if there is another one that could. It has longer while it comes.
- Who is too slow to be of use to the others is left out, and told so with the figures: a newcomer
  that cannot keep up, and a member whose link makes steps longer than they were without it.
- Who wants to leave drains while others serve its stage, and serves again when they are lost. Who
  is alone stays until another one can take over, however long that takes.
- A stage without any replica pauses the run. Then those that are barred may come, before none does.
"""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Drain, Ending, Finish, LeftOut, Standing, TooSlow
from swarmrt.scheduler.instructions import (
    Expel,
    Instruction,
    ReportExpelled,
    ReportHandOver,
    ReportPause,
    ReportPeer,
    ReportRecovery,
    ReportUnable,
    Send,
    StartDeadline,
)
from swarmrt.scheduler.trainer.closing import unlike, worth
from swarmrt.scheduler.trainer.closing.comparing import LONGER
from swarmrt.scheduler.trainer.closing.sync import Committing
from swarmrt.scheduler.trainer.membership.admitting import Admitting
from swarmrt.scheduler.trainer.membership.conduct import Charge
from swarmrt.scheduler.trainer.membership.health import Verdict
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.membership.price import redo_s
from swarmrt.scheduler.trainer.run import WAITING_S, Phase, Run
from swarmrt.scheduler.trainer.work.deaths import Deaths, Hopeless
from swarmrt.scheduler.wiring.replicas import Absent

HEALTH_S = 0.25  # between looks at who is late
LOAD_S = 60.0  # for the first newcomers, before it is known how long they take
_TOO_SLOW: dict[TooSlow, str] = {
    "link": "a gradient over its link",
    "state": "the state that it loads",
    "round": "a reduce with it",
    "step": "a step with it",
}
WHILE_IT_COMES = 16  # times as long a state may take of which bytes still come


class Fencing:
    def __init__(self, run: Run, admitting: Admitting, committing: Committing) -> None:
        self.absent = Absent(run.settings.record_ttl_s)
        self._deaths = Deaths(run)
        self._run, self._admitting, self._committing = run, admitting, committing
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
        instructions += [_lost(member) for member in self._run.members.take_forgotten()]
        for member in self._run.members:
            instructions += self._look_after(member, now)
        return instructions

    def _hears_nobody(self, now: float) -> bool:
        """Return whether all are silent at once, which is held against none of them. One alone is
        silent by itself."""
        run, quiet_s, self._looked_at = self._run, now - self._looked_at, now
        heard = [m.health for m in run.members if m.health.heard_at is not None]
        run.hears_nobody = len(heard) > 1 and all(h.misses_beats(now) for h in heard)
        if run.hears_nobody:
            for health in heard:
                health.slept(quiet_s, now)
        return run.hears_nobody

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
            if heard_at is None or now - heard_at <= run.settings.record_ttl_s:
                return []
            run.members.lose(member.peer)
            self._pardon_if_bare(member.stage)
            return [_lost(member)]
        if verdict is Verdict.GONE and self._is_too_dear(member, now):
            return self.fence(member, "it is silent, or makes no progress", now)
        if member.state is Membership.ADMITTED and self._is_waited_for(member, now):
            waited_s = now - member.admitted_at
            reason = f"it has not loaded its state in {waited_s:.0f} s, and others wait"
            run.conduct.fault(member.peer, run.version, now, waited_s=waited_s)
            return self.fence(member, reason, now)
        too_slow = self._is_too_slow(member)
        if too_slow is not None:
            return self.leave_out(member, too_slow, now)
        if verdict is not Verdict.FINE and not member.suspect:
            member.suspect = True
            run.dispatch.wiring.remove(member.peer)
        return []

    def _is_too_dear(self, member: Member, now: float) -> bool:
        """Return whether waiting for it costs more than doing its work again. Who is alone and is
        heard is waited for: nobody could do that work."""
        said_at = now - self._run.own_link.delay_s
        alone = not self._run.has_others(member.peer, member.stage)
        if alone and member.state is Membership.READY and not member.health.is_silent(said_at):
            return False
        return member.health.late_s(said_at) > redo_s(self._run, member)

    def _is_waited_for(self, newcomer: Member, now: float) -> bool:
        """Return whether the run cannot go on before it has its state, and has waited for long."""
        run = self._run
        if run.phase is not Phase.TRAINING or run.members.ready(newcomer.stage):
            return False
        patience_s = run.load_time.patience_s(LOAD_S, run.conduct.faults(newcomer.peer))
        waited_s = now - newcomer.admitted_at
        if waited_s <= patience_s:
            return False
        comes = now - newcomer.came_on_at <= patience_s
        return not comes or waited_s > WHILE_IT_COMES * patience_s

    def _is_too_slow(self, newcomer: Member) -> TooSlow | None:
        """Return why a newcomer will never be of use to the others, as things are; or None."""
        run = self._run
        if newcomer.state is not Membership.ADMITTED or worth.is_alone(run, newcomer):
            return None
        if worth.is_link_too_slow(run, newcomer):
            return "link"
        return "state" if worth.is_too_far_behind(run, newcomer) else None

    def leave_out(self, member: Member, what: TooSlow, now: float) -> list[Instruction]:
        """Go on without it for a while, and tell it why."""
        run, since = self._run, member.admitted_at
        step_s, takes_s = run.step_time.mean_s, now - since
        match what:
            case "link":
                takes_s = worth.following_s(run, member)
            case "round":
                takes_s, since = now - run.round_began_at, run.round_began_at
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
        """Keep it out of this run from now on; nobody hears it."""
        run, member = self._run, self._run.members.get(peer)
        run.conduct.expel(peer)
        if member is None:
            return []
        fenced = self.fence(member, reason, now) or [_lost(member)]
        run.members.lose(peer)
        return [ReportExpelled(peer, reason), *fenced]

    def lost(self, peer: PeerId, reason: str, now: float) -> list[Instruction]:
        member = self._run.members.get(peer)
        if member is None:
            return []
        fenced = self.fence(member, reason, now) or [_lost(member)]
        self._run.members.lose(peer)
        self.absent.add(peer, now)
        self._pardon_if_bare(member.stage)
        return fenced

    def gone(self, peer: PeerId, reason: str, now: float) -> list[Instruction]:
        """Go on without a peer whose link broke, unless whoever has its work is lost by it."""
        member = self._run.members.get(peer)
        if member is None:
            return []
        hopeless = self._deaths.without_a_word(member, reason, now)
        return [*self.lost(peer, reason, now), *self._give_up(hopeless)]

    def ended(self, member: Member, ending: Ending, now: float) -> list[Instruction]:
        """Go on without a peer that says why it ends, unless that would be the end of others
        too."""
        reason = f"it has ended: {ending.reason}"
        told = self.unable(member.peer, member.stage, reason, now)
        if member.state is not Membership.SEEN:
            told = []  # it is told that the run goes on without it
        hopeless = self._deaths.in_computation(member, ending.microbatch, ending.reason)
        return [*told, *self.lost(member.peer, reason, now), *self._give_up(hopeless)]

    def unable(self, peer: PeerId, stage: int, reason: str, now: float) -> list[Instruction]:
        """Tell people of somebody who would serve, and cannot."""
        run = self._run
        if not 0 <= stage < run.num_stages or run.conduct.is_expelled(peer):
            return []
        if not run.unable.add(peer, stage, reason, now):
            return []
        return [ReportUnable(stage, peer, reason)]

    def _give_up(self, hopeless: Hopeless | None) -> list[Instruction]:
        if hopeless is None or self._run.phase is Phase.CLOSING:
            return []
        return [self._run.give_up(hopeless.reason, hopeless.microbatches)]

    def fence(self, member: Member, reason: str, now: float) -> list[Instruction]:
        """Void what this peer did in the step; others do it."""
        if member.state is Membership.SEEN:
            return []
        run = self._run
        others = [m.peer for m in run.members if m is not member and m.state is not Membership.SEEN]
        member.state, member.suspect = Membership.SEEN, False
        member.leaving = member.draining = False
        standing = Standing(run.epoch, member.stage, member.peer, False)
        told: list[Instruction] = [Send(peer, standing) for peer in others]
        count = run.books.fence(member.peer)
        run.dispatch.lost(member.peer)
        why = f"stage {member.stage}, {member.peer}: {reason}"
        report = ReportRecovery(run.version, "fenced", count, why)
        instructions = [report, _lost(member), *told]
        instructions += self._committing.go_on_without(member.peer, why, now)
        if run.phase is Phase.CLOSING:
            return instructions
        return instructions + self._pause_if_bare(member, reason, now)

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
        return [pause, StartDeadline("waiting", now + WAITING_S)]

    def _pardon_if_bare(self, stage: int) -> None:
        """Let whoever is left of a stage come in again: better that one than none."""
        run = self._run
        if run.has_begun and stage in run.members.bare_stages():
            for member in run.members.of_stage(stage):
                run.conduct.pardon(member.peer)

    # ------------------------------------------------------------------ who leaves in peace

    def leaving(self, member: Member, idle: bool, now: float) -> list[Instruction]:
        """Let it drain if others stay, or if nothing is trained yet that they would need of it.

        When it holds nothing of the step it goes.
        """
        run = self._run
        is_news, member.leaving = not member.leaving, True
        nothing_is_trained = run.version == 0 and not run.has_begun
        if not self._others_stay(member.stage) and not nothing_is_trained:
            is_news = is_news or member.draining
            report = [ReportHandOver(member.stage, member.peer)] if is_news else []
            return [*report, *self._stays(member)]
        if not idle:
            member.draining = True
            run.dispatch.wiring.remove(member.peer)
            return [Send(member.peer, Drain(run.epoch))]
        if run.round is not None:
            return []  # it is still needed for its parts
        finish = Send(member.peer, Finish(f"drained at step {run.version}"))
        return [finish, *self.lost(member.peer, "it has left", now)]

    def _others_stay(self, stage: int) -> bool:
        """Return whether the stage is served by one that does not want to leave, and is heard."""
        ready = self._run.members.of_stage(stage, Membership.READY)
        return any(not replica.leaving and not replica.suspect for replica in ready)

    def _stays(self, member: Member) -> list[Instruction]:
        """Let it serve as before. It is said each time that it wants to go: an earlier word may
        come late."""
        was_draining, member.draining = member.draining, False
        back: list[Instruction] = [Send(member.peer, Drain(self._run.epoch, True))]
        return [*back, *self._admitting.welcome(member)] if was_draining else back


def _lost(member: Member) -> ReportPeer:
    """Return what takes it from people's view."""
    return ReportPeer(member.peer, member.stage, "lost", 0, 0, 0, 0.0)
