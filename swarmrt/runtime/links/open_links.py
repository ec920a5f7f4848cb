"""The links that are open: whether there may be one more, and which have come to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from swarmrt.ids import PeerId
from swarmrt.runtime.carriers.beacons import Agreement
from swarmrt.runtime.carriers.carriers import Connection
from swarmrt.runtime.limits.open_files import open_files_allowed
from swarmrt.runtime.limits.quotas import Quota, Quotas

MAX_LINKS = 8192  # of all but strangers, and a quarter of the files that may be open
MAX_INCOMING = 8  # of one peer: it needs one, and more while broken ones are found out
MAX_STRANGERS = 32  # links of all strangers together
MAX_WAITING = 128  # links on which no hello has come, of peers of which nothing is known
MAX_OF_STRANGER = 2  # links of one
LOOK_S = 2.0
QUIET_LOOKS = 5  # in a row at something that is waited for, of which no byte has come


@dataclass(eq=False)
class Link:
    """A connection that is open."""

    connection: Connection
    incoming: bool
    quota: Quota
    agreement: Agreement | None  # about beacons
    stream_key: str  # with which further connections join; empty for none
    their_stream_key: str = field(init=False, default="")  # what its hello has said
    process: str = field(init=False, default="")  # that it is to, by its hello
    version: int = field(init=False, default=0)  # of the protocol, that both ends speak
    greeted: bool = False
    timer: asyncio.TimerHandle = field(init=False)  # until it is greeted
    joined: set[Link] = field(default_factory=set)  # further connections, opened by the other end
    of: Link | None = None  # when it is one of those
    answers: int = 0  # if all has come, while the other end does not read
    came_bytes: int = 0  # at the last look
    quiet_looks: int = 0  # in a row that found no more


class OpenLinks:
    """The open links of a process."""

    def __init__(self, quotas: Quotas, streams: int) -> None:
        """`streams` is how many connections one link may have."""
        self._quotas, self._streams = quotas, streams
        self._most = min(MAX_LINKS, open_files_allowed() // 4)
        self._links: dict[Link, None] = {}  # the oldest first

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, link: Link) -> bool:
        return link in self._links

    def add(self, link: Link) -> None:
        self._links[link] = None

    def discard(self, link: Link) -> None:
        self._links.pop(link, None)

    def of(self, peer: PeerId) -> list[Link]:
        return [link for link in self._links if link.connection.peer == peer]

    def came_state_bytes(self, peer: PeerId) -> int:
        """Return how many bytes of states have come over a peer's links, also of chunks that are
        not whole."""
        links = (each for link in self.of(peer) for each in (link, *link.joined))
        return sum(link.connection.frames.came_state_bytes for link in links)

    def of_earlier(self, link: Link) -> list[Link]:
        """Return the links to a process of this link's peer that this one has taken the place of:
        it has started anew, and what they were to is gone."""
        its = [other for other in self.of(link.connection.peer) if other.process]
        return [other for other in its if link.process and other.process != link.process]

    def has_room_for(self, peer: PeerId) -> bool:
        """Return whether a peer that dials may have one more."""
        its = self.of(peer)
        opened = sum(link.incoming for link in its)
        if self._quotas.is_stranger(peer):
            self._end_first_of(greeted=False, most=MAX_WAITING - 1)
            return opened < MAX_OF_STRANGER
        connections = opened + sum(len(link.joined) for link in its)
        others = sum(not link.quota.is_stranger for link in self._links)
        may_open = opened < MAX_INCOMING and connections < MAX_INCOMING + self._streams - 1
        return may_open and others < self._most

    def greeted(self) -> None:
        """A link is greeted. If it is a stranger's, another one may have to go for it."""
        self._end_first_of(greeted=True, most=MAX_STRANGERS)

    def _end_first_of(self, *, greeted: bool, most: int) -> None:
        """End the one of the strangers' links that has been here for longest: it has had its
        time."""
        of_strangers = [
            link
            for link in self._links
            if link.incoming and link.greeted == greeted and link.quota.is_stranger
        ]
        if len(of_strangers) > most:
            self._quotas.refused["links"] += 1
            of_strangers[0].connection.end("another stranger needs its place")

    async def look_again_and_again(self) -> None:
        """End links that hold what will never be whole, and those of strangers who say nothing.

        Looks are counted, and not seconds: while this process stands still it cannot read either.
        Never returns.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            for link in list(self._links):
                for each in (link, *link.joined):
                    self._look_at(each)

    def _look_at(self, link: Link) -> None:
        frames = link.connection.frames
        is_waited_for = not frames.is_between_messages or link.quota.is_stranger
        if frames.came_bytes != link.came_bytes or not is_waited_for:
            link.came_bytes, link.quiet_looks = frames.came_bytes, 0
            return
        link.quiet_looks += 1
        if link.quiet_looks >= QUIET_LOOKS:
            self._quotas.refused["unfinished"] += 1
            link.connection.end(f"nothing more of it came in {QUIET_LOOKS * LOOK_S:.0f} s")
