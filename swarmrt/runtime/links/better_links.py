"""Changing links over to a better carrier, when there is one after all.

A peer that was first reached through the daemons is dialed directly again, ever more rarely. When
that succeeds, each end changes over by itself: it writes to its end what it has begun, asks if all
of that has come, and writes nothing meanwhile. After the answer it goes on with the new connection,
so nothing is lost and nothing overtakes what was said before. Without an answer it stays. The old
connection is kept, for when the new one breaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from itertools import count
from typing import Any

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.runtime.links.dialing import Dialer
from swarmrt.runtime.links.open_links import Link, OpenLinks
from swarmrt.runtime.links.outbox import Move, Outbox
from swarmrt.wire.kinds import Moved, Moving
from swarmrt.wire.writing import encode

ANSWER_S = 10.0  # to the question if all has come
MAX_ANSWERS = 16  # that wait for whoever does not read
LOOK_S = 5.0  # between two looks if a better carrier may be tried


class BetterLinks:
    """The links of a process that may become better ones."""

    def __init__(
        self,
        dialer: Dialer,
        links: OpenLinks,
        outboxes: Mapping[PeerId, Outbox],
        dial: Callable[[PeerId, str], Awaitable[None]],
        go_on: Callable[[PeerId, Outbox], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`dial(peer, than)` opens a link by a better carrier than the one of that name; `go_on`
        writes what waits, after an outbox has another connection or has got none."""
        self._dialer, self._links, self._outboxes = dialer, links, outboxes
        self._dial, self._go_on, self._spawn = dial, go_on, spawn
        self._numbers = count(1)

    def look_for(self, peer: PeerId, outbox: Outbox) -> None:
        """Look for a better connection than the one that is written to, as long as there may be
        one."""
        if not outbox.looks_for_better and self._may_be_better(peer, outbox):
            outbox.looks_for_better = True
            self._spawn(self._look_for(peer, outbox))

    def opened(self, link: Link) -> None:
        """Change over to a link that is open, if it is better than what is written to."""
        outbox = self._outboxes.get(link.connection.peer)
        if outbox is None or outbox.connection is None or outbox.move is not None:
            return
        if self._dialer.is_better(link.connection.carrier, outbox.connection.carrier):
            outbox.move = Move(link.connection, next(self._numbers))
            outbox.frames.finishes = True
            self.wrote(link.connection.peer, outbox)

    def wrote(self, peer: PeerId, outbox: Outbox) -> None:
        """Ask if all that was written has come, once nothing is begun."""
        move = outbox.move
        if move is None or move.timer is not None or outbox.frames.has_begun:
            return
        assert outbox.connection is not None
        outbox.connection.write(outbox.frames.alone(encode(Moving(move.number))))
        loop = asyncio.get_running_loop()
        move.timer = loop.call_later(ANSWER_S, self._stay, peer, outbox, move)

    def heard(self, link: Link, message: Moving | Moved) -> None:
        """Answer the other end's question, or take its answer."""
        peer = link.connection.peer
        outbox = self._outboxes.get(peer)
        if outbox is None or link.of is not None:
            return
        if isinstance(message, Moving):
            link.answers = 0 if link.connection.may_write else link.answers + 1
            if link.answers <= MAX_ANSWERS:
                link.connection.write(outbox.frames.alone(encode(Moved(message.number))))
            return
        move = outbox.move
        if move is None or move.timer is None or link.connection is not outbox.connection:
            return
        if message.number == move.number:
            outbox.stay()
            outbox.connection = move.to
            self._dialer.works(peer, move.to.carrier)
            self._go_on(peer, outbox)

    def ended(self, link: Link) -> None:
        """Give up changing over to a link that has ended."""
        outbox = self._outboxes.get(link.connection.peer)
        if outbox is not None and outbox.move is not None and outbox.move.to is link.connection:
            self._stay(link.connection.peer, outbox, outbox.move)

    def _stay(self, peer: PeerId, outbox: Outbox, move: Move) -> None:
        if outbox.move is move:
            outbox.stay()
            self._go_on(peer, outbox)

    def _may_be_better(self, peer: PeerId, outbox: Outbox) -> bool:
        connection = outbox.connection
        is_used = self._outboxes.get(peer) is outbox and connection is not None
        return is_used and self._dialer.has_better(connection.carrier if connection else "")

    async def _look_for(self, peer: PeerId, outbox: Outbox) -> None:
        while self._may_be_better(peer, outbox):
            assert outbox.connection is not None
            than = outbox.connection.carrier
            due_s = self._dialer.better_due_s(peer, than)
            if due_s > 0:
                await asyncio.sleep(min(due_s, LOOK_S))
                continue
            better = [each for each in self._links.of(peer) if each.greeted and each.of is None]
            better = [b for b in better if self._dialer.is_better(b.connection.carrier, than)]
            if better:  # it did not answer the last time
                self._dialer.tried(peer, better[0].connection.carrier)
                self.opened(better[0])
                continue
            try:
                await self._dial(peer, than)
            except (OSError, RunError):
                continue  # it is tried again, later
        outbox.looks_for_better = False
