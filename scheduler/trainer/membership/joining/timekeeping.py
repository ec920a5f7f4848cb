"""The rhythm of beacons: how often each seat is to beacon, and how many of it are listened to.

Rules:
- All together are so many a second at the most, give or take a quarter: in a larger swarm each
  beacons less often. Who does not keep to that is told, by the next of its beacons once more.
- Who is waited for beacons as often as in a small swarm meanwhile, so that it is found out as soon
  whether it stands still; few at a time.
- Somebody who has much to tell may say it at once. Who beacons on and on is not listened to.
"""

from __future__ import annotations

from swarmrt.messages import Beacon, SayEvery
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.scheduler.timing.intervals import beacon_s, beacon_within_bounds, is_off
from swarmrt.scheduler.timing.times import BEACON_S, REMIND_S
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.members import Member
from swarmrt.scheduler.trainer.run import Run

MOST_WATCHED = 32  # members at a time
WATCH_S = 10.0  # since it was last found late
AT_ONCE = 64.0  # beacons of one seat that are listened to, after a silence
IN_AN_INTERVAL = 10.0  # and one after the other


def is_too_much(member: Member, now: float) -> bool:
    """Return whether this beacon is one too many."""
    regained = IN_AN_INTERVAL * max(0.0, now - member.spared_at) / member.health.every_s
    member.spared, member.spared_at = min(AT_ONCE, member.spared + regained), now
    if member.spared < 1.0:
        return True
    member.spared -= 1.0
    return False


def keep_time(run: Run, member: Member, beacon: Beacon, now: float) -> list[Instruction]:
    """Tell a seat how often to beacon, where that is not about what it does."""
    wanted_s = beacon_s(len(run.members), run.settings.most_beacons_per_s)
    if now < member.watched_until:
        wanted_s = BEACON_S
    said_s = max(beacon.every_s, BEACON_S)
    if run.phase is RunPhase.HAILING:  # who takes part is not known yet
        member.told_s = max(member.told_s, beacon_within_bounds(said_s))  # by who was here before
        member.health.every_s = member.believed_s(beacon)
        return []
    if not is_off(said_s, wanted_s) and said_s <= member.told_s:
        return []
    if now - member.told_at < REMIND_S:
        return []  # it is on its way
    member.told_at, member.told_s = now, max(member.told_s, wanted_s)
    member.health.every_s = member.believed_s(beacon)
    return [Send(member.peer, SayEvery(run.epoch, wanted_s))]


def watch_closely(run: Run, member: Member, now: float) -> list[Instruction]:
    """Have somebody that is waited for beacon often for a while, if that is not so anyway."""
    if not member.health.is_rarely_heard and now >= member.watched_until:
        return []
    run.watched = {peer: until for peer, until in run.watched.items() if until > now}
    if member.peer not in run.watched and len(run.watched) >= MOST_WATCHED:
        return []
    run.watched[member.peer] = member.watched_until = now + WATCH_S
    return keep_watching(run, member, now)


def keep_watching(run: Run, member: Member, now: float) -> list[Instruction]:
    """Tell it so, and once more while it does not obey: a word may be lost."""
    said_s = member.beacon.every_s if member.beacon is not None else 0.0
    if now >= member.watched_until or said_s <= BEACON_S or now - member.told_at < REMIND_S:
        return []
    member.told_at = now
    member.health.asked(now)
    return [Send(member.peer, SayEvery(run.epoch, BEACON_S))]
