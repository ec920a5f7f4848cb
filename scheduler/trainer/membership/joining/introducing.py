"""The introduction of replicas to those that they give work to or take work from."""

from __future__ import annotations

from swarmrt.messages import Standing
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.scheduler.timing.times import REMIND_S
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.wiring.limits import most_given


def welcome(run: Run, member: Member) -> list[Instruction]:
    """Tell those before it that they may give it work, and those after it that they take work from
    it."""
    if member.state is not Membership.READY or member.draining:
        return []
    if member.stage == 0:
        run.dispatch.wiring.add(member.peer, member.service_s, member.island)
        run.dispatch.wiring.limit(member.peer, most_given(member.holds))
    before = run.members.of_stage(member.stage - 1, Membership.READY)
    after = run.members.of_stage(member.stage + 1, Membership.READY)
    return [vouch(run, member, other) for other in (*before, *after)]


def is_near(member: Member, other: Member) -> bool:
    """Return whether routes may go from one to the other: they work in one island."""
    return member.island == other.island


def neighbours(run: Run, member: Member) -> list[Member]:
    """Return replicas that it may give work to or take work from. One that wants to leave serves on
    while there is no other."""
    before = run.members.of_stage(member.stage - 1, Membership.READY)
    after = run.members.of_stage(member.stage + 1, Membership.READY)
    return [*before, *([other for other in after if not other.leaving] or after)]


def vouch(run: Run, member: Member, to: Member) -> Send:
    """Return the word by which another one believes this member."""
    its = (member.stage, member.peer, True, member.service_s)
    return Send(to.peer, Standing(run.epoch, *its, is_near(member, to), member.holds))


def remind(run: Run, member: Member, now: float) -> list[Instruction]:
    """Say again what was lost of such words: one of them every so often, in turn."""
    if now - member.reminded_at < REMIND_S:
        return []
    member.reminded_at = now
    others = neighbours(run, member)
    if not others:
        return []
    member.reminders += 1
    return [vouch(run, others[member.reminders % len(others)], member)]
