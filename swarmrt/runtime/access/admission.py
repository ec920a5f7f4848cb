"""A peer's way into a run: it knocks at the trainer's, is welcomed, and stays a member."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from swarmrt.errors import AccessError, RunError
from swarmrt.ids import PeerId
from swarmrt.messages import Knock, NotInvited, Renewed, Welcome
from swarmrt.runtime.links.links import Links
from swarmrt.scheduler.timing.estimate import Estimate
from swarmrt.trust.papers import GuestsPapers

log = logging.getLogger("swarmrt.admission")

ANSWER_S = 2.0  # for the first answer; a link is dialed and greeted before it
RENEW_LEFT = 0.5  # of a membership's time, when it is renewed
RENEW_AGAIN_S = 20.0
MOST_DOUBLINGS = 4  # of the time between two knocks
TOLD_AFTER_S = 20.0  # people are told what is waited for


class Admission:
    """Gets and keeps a membership. `enter` first, `keep` beside everything else."""

    def __init__(
        self,
        papers: GuestsPapers,
        me: PeerId,
        trainer: PeerId,
        stages: tuple[int, ...],
        links: Links,
        on_member: Callable[[Welcome], None],
    ) -> None:
        """`on_member` is told of every membership."""
        self._papers, self._me, self._trainer = papers, me, trainer
        self._stages, self._links, self._on_member = stages, links, on_member
        self._answered = asyncio.Event()
        self._refusal = ""
        self._has_entered = False
        self._answer_time = Estimate()

    def knock(self) -> None:
        """Ask the trainer for a membership, the first one or the next one."""
        self._links.send(self._trainer, Knock(self._stages))

    async def enter(self, look_again: Callable[[], Awaitable[None]]) -> None:
        """Wait until the trainer has answered. `look_again` finds out where it is.

        Raises AccessError when it does not let this peer in, RunError when it speaks another
        version of the protocol.
        """
        tries, began_at = 0, time.monotonic()
        while True:
            self._answered.clear()
            asked_at = time.monotonic()
            self.knock()
            try:
                async with asyncio.timeout(self._answer_time.patience_s(ANSWER_S, tries)):
                    await self._answered.wait()
            except TimeoutError:
                if why := self._links.why_not_understood(self._trainer):
                    raise RunError(f"the run's trainer is not understood: {why}") from None
                tries = min(tries + 1, MOST_DOUBLINGS)
                waited_s = time.monotonic() - began_at
                if waited_s > TOLD_AFTER_S:
                    log.warning("the trainer has not answered for %.0f s; asking again", waited_s)
                await look_again()
                continue
            self._answer_time.add(time.monotonic() - asked_at)
            if self._refusal:
                raise AccessError(f"the trainer does not let this peer in: {self._refusal}")
            self._has_entered = True
            return

    def answered(self, message: Welcome | NotInvited) -> None:
        """Take the trainer's answer.

        Raises AccessError when it is no membership of this peer, and when it takes the one away.
        """
        if isinstance(message, NotInvited):
            self._refusal = message.reason
            if self._has_entered:
                raise AccessError(f"the trainer has turned this peer out: {self._refusal}")
        else:
            self._take(message)
        self._answered.set()

    async def keep(self, look_again: Callable[[], Awaitable[None]]) -> None:
        """Renew the membership before it ends, or as soon as the trainer is there again."""
        while True:
            left_s = self._papers.until(self._me, time.time()) - time.time()
            await asyncio.sleep(max(RENEW_AGAIN_S, left_s * RENEW_LEFT))
            if left_s < RENEW_AGAIN_S:
                await look_again()
            self.knock()

    def _take(self, welcome: Welcome) -> None:
        earlier, self._papers.membership = self._papers.membership, welcome.membership
        if not self._papers.is_member(self._me, time.time()):
            self._papers.membership = earlier
            raise AccessError("the trainer's membership does not hold here; is the clock right?")
        self._refusal = ""
        for peer in self._links.peers():
            self._links.send(peer, Renewed(welcome.membership))
        self._on_member(welcome)
