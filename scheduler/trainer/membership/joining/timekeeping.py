"""The rhythm of beacons: how often each seat is to beacon, and how many of it are listened to.

Rules:
- All together are so many a second at the most, give or take a quarter: in a larger swarm each
  beacons less often. Who does not keep to that is told, by the next of its beacons once more.
- Somebody who has much to tell may say it at once. Who beacons on and on is not listened to.
"""

from __future__ import annotations

from swarmrt.messages import Beacon, SayEvery
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.scheduler.timing.intervals import beacon_s, is_off
from swarmrt.scheduler.timing.times import BEACON_S, REMIND_S
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.members import Member
from swarmrt.scheduler.trainer.run import Run

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
    said_s = max(beacon.every_s, BEACON_S)
    if not is_off(said_s, wanted_s) and said_s <= member.told_s:
        return []
    if run.phase is RunPhase.HAILING or now - member.told_at < REMIND_S:
        return []  # who takes part is not known yet; or it is on its way
    member.told_at, member.told_s = now, max(member.told_s, wanted_s)
    return [Send(member.peer, SayEvery(run.epoch, wanted_s))]
