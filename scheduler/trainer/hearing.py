"""The words of peers, and who deals with each.

Rules:
- Of a stranger only counts what it is, and of nobody what cannot be true.
- A word counts in the epoch and term that it is of.
"""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Applied,
    Beacon,
    Busy,
    Claim,
    Ending,
    Evaluated,
    Leaving,
    Message,
    Offer,
    Prepared,
    Ready,
    Refused,
    Released,
    Stale,
    Unable,
    Updated,
)
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.timing.times import REWIRE_S
from swarmrt.scheduler.trainer.closing.strategy import Closing
from swarmrt.scheduler.trainer.membership.arranging.arranging import Arranging
from swarmrt.scheduler.trainer.membership.fencing.departures import Departures
from swarmrt.scheduler.trainer.membership.fencing.draining import Draining
from swarmrt.scheduler.trainer.membership.joining.beacons import Beacons
from swarmrt.scheduler.trainer.membership.joining.letting_in import LettingIn
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.plausible import CHECKS
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.microbatches.working import Working


class Hearing:
    def __init__(
        self,
        run: Run,
        *,
        working: Working,
        closing: Closing,
        departures: Departures,
        draining: Draining,
        letting_in: LettingIn,
        beacons: Beacons,
        arranging: Arranging,
    ) -> None:
        self._run, self._working, self._closing = run, working, closing
        self._departures, self._draining = departures, draining
        self._letting_in, self._beacons, self._arranging = letting_in, beacons, arranging

    def heard(self, sender: PeerId, message: Message, now: float) -> list[Instruction]:
        """Take a word of anybody: of a stranger only what it is, of nobody what cannot be true."""
        run, member = self._run, self._run.members.get(sender)
        check = CHECKS.get(type(message))
        if check is not None and (flaw := check(message, run.known)):
            if member is not None and member.state is not Membership.SEEN:
                run.charge(sender, flaw, "lie")
            return []
        if type(message) is Beacon:
            if run.conduct.is_expelled(sender):
                return []
            return self._beacons.beacon(sender, message, now)
        if type(message) is Unable:
            told = self._departures.unable(sender, message.stage, message.reason, now)
            return told + self._arranging.unable(sender, message.stage, now)
        if type(message) is Offer:
            return self._arranging.offered(sender, message, now)
        return self._received(member, message, now) if member is not None else []

    def _received(self, member: Member, message: Message, now: float) -> list[Instruction]:
        run, peer = self._run, member.peer
        match message:
            case Accumulated():  # most are of these two: a pattern of fields would take longer
                is_its = message.stage == member.stage
                if is_its and run.is_current(member, message.epoch, message.term):
                    self._working.finishing.receipt(member, message.microbatch, now)
            case Accepted():
                run.dispatch.accepted(peer, message)
            case Busy(work, service_s):
                run.dispatch.wiring.estimates.observe(peer, service_s)
                run.dispatch.refused(peer, work, now + max(REWIRE_S, service_s))
            case Stale(work):
                run.dispatch.refused(peer, work, now + REWIRE_S)
            case Claim():
                return self._working.claims.claim(member, message, now)
            case Evaluated():
                self._working.finishing.evaluated(member, message, now)
            case Released(epoch, term) if run.is_current(member, epoch, term):
                return self._working.releases.released(member, message)
            case Ready(epoch, term, version, digest) if run.is_current(member, epoch, term):
                return self._letting_in.ready(member, version, digest, now)
            case Leaving(epoch, term) if run.is_current(member, epoch, term):
                return self._draining.leaving(member, message, now)
            case Prepared() | Updated() | Refused():
                return self._closing.heard(member, message, now)
            case Ending():
                return self._departures.ended(member, message, now)
            case Applied(epoch, version, digest) if epoch == run.epoch:
                if member.state is Membership.ADMITTED:
                    return self._letting_in.followed(member, version, digest, now)
                return self._closing.heard(member, message, now)
        return []
