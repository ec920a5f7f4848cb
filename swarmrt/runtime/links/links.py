"""Links: persistent, encrypted, framed connections to other processes.

One a pair, used both ways; whoever needs it first dials. When both dial at once there are two: both
are read, and each side goes on writing to the one it had first, or to the other when that breaks
(`_write_to_another`) or is better (`better_links`).
The other end's identity is what the carrier has proved. Where a link is too narrow, `streams` adds
connections to it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from swarmrt.errors import NoCommonVersion, RunError, WireError
from swarmrt.foreign import printable
from swarmrt.ids import NO_SEAT, PeerId, Seats, name_of, peer_of, stage_of
from swarmrt.messages import Beacon, Message
from swarmrt.runtime.access.door import Door
from swarmrt.runtime.carriers.beacons import Beacons
from swarmrt.runtime.carriers.carriers import Carrier, Connection
from swarmrt.runtime.faults.faults import LinkFaults
from swarmrt.runtime.limits.downlink import Downlink
from swarmrt.runtime.limits.quotas import Quotas
from swarmrt.runtime.limits.uplink import Uplink
from swarmrt.runtime.links.better_links import BetterLinks
from swarmrt.runtime.links.dialing import Dialer
from swarmrt.runtime.links.hellos import checked_hello, hello_of
from swarmrt.runtime.links.open_links import Link, OpenLinks
from swarmrt.runtime.links.outbox import Gathering, Outbox
from swarmrt.runtime.links.streams import Streams
from swarmrt.runtime.links.writing import Writing
from swarmrt.runtime.reach.addresses import Reach
from swarmrt.wire.frames import Tally
from swarmrt.wire.kinds import Join, Moved, Moving
from swarmrt.wire.limits import GREETING, Limits
from swarmrt.wire.reading import FrameReader
from swarmrt.wire.versions import SPEAKS, Versions
from swarmrt.wire.writing import FrameWriter, Outgoing, encode

log = logging.getLogger("swarmrt.links")

DIALS = 3
HELLO_S = 30.0  # of who has dialed: it may come from far away

OnMessage = Callable[[PeerId, Message, Sequence[torch.Tensor]], None]
OnLost = Callable[[PeerId, str], None]
OnSendFailed = Callable[[PeerId, Message], None]


class Ends(NamedTuple):
    """The receiver, in this process, of what is said to one of its seats, or to itself."""

    on_message: OnMessage
    on_send_failed: OnSendFailed


class Links:
    """All links of a process. `start` first, `close` at the end.

    Seats share them: `seat` says who takes what is said to one. Whoever is sent to, or has said
    something, is named by its seat, or by its process where that has none.
    """

    def __init__(
        self,
        carriers: Sequence[Carrier],
        door: Door,
        max_message_bytes: int,
        on_message: OnMessage,
        on_lost: OnLost,
        on_send_failed: OnSendFailed,
        faults: LinkFaults | None = None,
        beacons: Beacons | None = None,
        streams: int = 1,
        before_gathered: Callable[[], None] = lambda: None,
        quotas: Quotas | None = None,
        reach: Reach | None = None,
        uplink: Uplink | None = None,
        downlink: Downlink | None = None,
        speaks: Versions = SPEAKS,
        me: PeerId | None = None,
    ) -> None:
        """`carriers` in the order of preference; the `door` decides from whom what is taken;
        without `beacons` those go over links too.
        `streams` is how many connections one link may have, each way. `before_gathered` is called
        before messages leave that were gathered. Without `quotas` everybody may say as much as he
        likes of what the door lets through; without `reach` any address is dialed; without `uplink`
        frames go as fast as they can. `speaks` are the versions of the protocol that are offered.
        Seats of this process talk to each other where it is told who that is, `me`.
        """
        self._carriers, self._door, self._max_bytes = carriers, door, max_message_bytes
        self._speaks, self._me = speaks, me
        self.quotas = quotas or Quotas(Limits.of(max_message_bytes), streams, door=door)
        self._dialer = Dialer(carriers, reach, self.quotas.refused)
        self._seats = {NO_SEAT: Ends(on_message, on_send_failed)}
        self._on_lost = on_lost
        self._faults, self._beacons = faults, beacons
        self.tally = Tally()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._links = OpenLinks(self.quotas, streams)
        self._streams = streams
        self._closing, self._downlink = False, downlink
        self._process = secrets.token_hex(8)  # by which others know that this one has started anew
        self._writing = Writing(
            self._dial,
            self._broken,
            lambda *what: self._better.wrote(*what),
            self._spawn,
            before_gathered,
            self.tally,
            faults,
            uplink,
        )
        self._outboxes = self._writing.outboxes
        self._better = BetterLinks(
            self._dialer,
            self._links,
            self._outboxes,
            self._dial_better,
            self._go_on_writing,
            self._spawn,
        )
        if faults is not None:
            faults.on_cut(self._cut)

    async def start(self) -> None:
        """Take incoming links from now on."""
        if self._beacons is not None:
            await self._beacons.start()
        for carrier in self._carriers:
            await carrier.start(self._welcome)
        self._spawn(self._links.look_again_and_again())

    def addresses(self, carrier: str) -> list[str]:
        """Return where others reach this process by the carrier of that name, if it is used."""
        return [a for known in self._carriers if known.name == carrier for a in known.addresses()]

    def know(self, peer: PeerId, addresses: Mapping[str, Sequence[str]]) -> None:
        """Learn a peer's addresses from its record, by the carrier's name."""
        self._dialer.know(peer, addresses)

    def known_addresses(self, peer: PeerId, carrier: str) -> Sequence[str]:
        """Return where a peer can be dialed by the carrier of that name, as far as that is
        known."""
        return self._dialer.known(peer, carrier)

    def all_known(self, carrier: str) -> dict[PeerId, Sequence[str]]:
        """Return where peers can be dialed by the carrier of that name, the latest ones last."""
        return self._dialer.all_known(carrier)

    def why_not_understood(self, peer: PeerId) -> str | None:
        """Return why a peer that was reached speaks no version of the protocol that we speak; None
        if that is not so."""
        return self._dialer.why_not_understood(peer)

    def host_of(self, peer: PeerId) -> str | None:
        """The IP address from which a peer's link comes, where that is the peer's own."""
        hosts = (link.connection.host() for link in self._links if link.connection.peer == peer)
        return next((host for host in hosts if host is not None), None)

    def seat(self, stage: int, on_message: OnMessage, on_send_failed: OnSendFailed) -> None:
        """Take what is said to this process's seat at a stage."""
        self._seats[stage] = Ends(on_message, on_send_failed)

    def unseat(self, stage: int) -> None:
        """Take nothing any more that is said to a seat, which is closed."""
        self._seats.pop(stage, None)

    def send(
        self,
        to: PeerId,
        message: Message,
        tensors: Sequence[torch.Tensor] = (),
        *,
        of: int = NO_SEAT,
    ) -> None:
        """Queue it, as the word of this process's seat `of` that stage; never blocks. Tensors must
        stay as they are until they are written.

        What cannot be sent comes back through `on_send_failed`, later. Raises RunError for a
        message that no process of this run would take: sending it again cannot help.
        """
        if self._closing:
            return
        peer = peer_of(to)
        if peer == self._me:
            self._say_here(Seats(of, stage_of(to)), message, tensors)
            return
        if isinstance(message, Beacon) and self._beacons is not None:
            if self._beacons.send(peer, message):
                return
        outgoing = encode(message, tensors, Seats(of, stage_of(to)))
        if outgoing.left_bytes > self._max_bytes:
            raise RunError(
                f"{type(message).__name__} has {outgoing.left_bytes} bytes, but "
                f"links.max_message_bytes is {self._max_bytes}; raise it for this run"
            )
        outbox = self._writing.outbox(peer)
        if outbox.is_on_its_way(outgoing):
            return
        if outbox.is_full_for(outgoing):
            asyncio.get_running_loop().call_soon(self._send_failed, peer, outgoing)
            return
        self._writing.push(peer, outbox, outgoing)

    @property
    def together(self) -> Gathering:
        """A context: small messages that are sent within it leave at its end, in one piece for
        each link."""
        return self._writing.together

    @property
    def is_gathering(self) -> bool:
        return self._writing.together.depth > 0

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to go, to all peers."""
        return sum(outbox.queued_bytes for outbox in self._outboxes.values())

    def gone(self) -> list[tuple[PeerId, int, int]]:
        """Return for each peer how many bytes of states and parts have gone to it, and what waits
        to."""
        boxes = self._outboxes.items()
        return [(peer, box.tally.went_bytes, box.queued_bytes) for peer, box in boxes]

    def came_state_bytes(self, donor: PeerId) -> int:
        """Return how many bytes of states have come over the links that a donor has now."""
        return self._links.came_state_bytes(peer_of(donor))

    def peers(self) -> set[PeerId]:
        """Return who is at the other end of an open link."""
        return {link.connection.peer for link in self._links if link.greeted}

    def drop(self, peer: PeerId) -> None:
        """End all connections of a peer as they are. `on_lost` is told."""
        self._cut(peer)

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything queued is written, but not longer than this."""
        await self._writing.flush(timeout_s)

    async def close(self) -> None:
        """Close all links. Nothing is reported as lost by it."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        links = [further for link in self._links for further in (link, *link.joined)]
        streams = [outbox.streams for outbox in self._outboxes.values() if outbox.streams]
        for link in links:
            link.connection.close()
        for opened in streams:
            opened.close()
        await asyncio.gather(
            *(link.connection.wait_closed() for link in links),
            *(opened.wait_closed() for opened in streams),
        )
        for carrier in self._carriers:
            await carrier.close()
        if self._beacons is not None:
            await self._beacons.close()
        self._writing.close()

    # ------------------------------------------------------------------ dialing

    async def _dial(self, peer: PeerId, outbox: Outbox) -> None:
        """Get a connection to the peer. Raises RunError when it cannot be reached, at once if that
        has just been tried: whoever wants to send decides anew, and does not wait.

        A peer that cannot be dialed may have dialed us meanwhile, which is as good.
        """
        self._dialer.check_due(peer)
        for attempt in range(1, DIALS + 1):
            try:
                if self._faults is not None:
                    self._faults.check_not_cut(peer)
                connection = await self._dialer.dial(peer)
                break
            except RunError:
                if outbox.connection is not None:
                    return
                if attempt == DIALS:
                    raise
                await asyncio.sleep(0.1 * 2**attempt)  # a peer that starts is not there at once
        if outbox.connection is None:
            outbox.connection = connection
            self._better.look_for(peer, outbox)
        self._begin(connection, incoming=False)

    async def _dial_better(self, peer: PeerId, than: str) -> None:
        """Open a link by a better carrier. Raises RunError or OSError."""
        if self._faults is not None:
            self._faults.check_not_cut(peer)
        self._begin(await self._dialer.dial_better(peer, than), incoming=False)

    def _go_on_writing(self, peer: PeerId, outbox: Outbox) -> None:
        """Write what waits, to a connection that may be another one than before."""
        link = next((one for one in self._links if one.connection is outbox.connection), None)
        if link is not None and outbox.streams is None:
            self._offer_streams(link)
        if len(outbox.frames):
            self._writing.write_now(peer, outbox)

    # ------------------------------------------------------------------ reading

    def _welcome(self, connection: Connection) -> None:
        """Take a connection that another process has dialed."""
        cut = self._faults is not None and self._faults.is_cut(connection.peer)
        if self._closing or cut:
            connection.close()
        elif not self._links.has_room_for(connection.peer):
            self.quotas.refused["links"] += 1
            connection.close()
        else:
            self._begin(connection, incoming=True)

    def _begin(self, connection: Connection, incoming: bool) -> None:
        """Say hello, and take messages until the connection ends."""
        beacons = self._beacons
        agreement = beacons.offer(connection.peer) if beacons is not None else None
        takes_streams = self._streams > 1 and connection.carrier_with_streams is not None
        stream_key = secrets.token_hex(16) if takes_streams else ""
        peer = connection.peer
        quota = self.quotas.enter(peer, partial(self._evict, peer))
        link = Link(connection, incoming, quota, agreement, stream_key)
        self._links.add(link)
        within_s = HELLO_S if incoming else self._dialer.most_patience_s(peer)
        link.timer = asyncio.get_running_loop().call_later(
            within_s, connection.end, f"did not say hello in {within_s:.0f} s"
        )
        frames = FrameWriter()
        hello = hello_of(self._door, self._speaks, self._process, stream_key, beacons, agreement)
        frames.push(encode(hello))
        connection.write(frames.next_frames())
        connection.downlink = self._downlink
        connection.begin(
            FrameReader(GREETING, quota.account, partial(self._may_come, link), self.tally),
            partial(self._received, link),
            partial(self._ended, link),
            self.together,
        )

    def _may_come(self, link: Link, message: Message, payload_bytes: int) -> bool:
        """Asked about each message before its payload is. Raises WireError."""
        if not link.greeted:
            return True  # `_received` looks at it
        frames, quota = link.connection.frames, link.quota
        if quota.is_stranger:  # or was, before its last message
            frames.limits = self.quotas.limits(quota)
        return self.quotas.check(quota, message, payload_bytes, frames.header_bytes, frames.seats)

    def _received(self, link: Link, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        """Take a message. Raises WireError when the first one is not the hello of this run."""
        if link.greeted:
            if isinstance(message, (Moving, Moved)):
                self._better.heard(link, message)
            else:
                self._hand_over(
                    link.connection.peer, link.connection.frames.seats, message, tensors
                )
            return
        if isinstance(message, Join) and link.incoming:
            self._join(link, message)
            return
        peer = link.connection.peer
        try:
            hello, link.version = checked_hello(self._door, self._speaks, peer, message)
        except NoCommonVersion as error:
            self._dialer.not_understood(peer, str(error))
            raise
        link.their_stream_key, link.process = hello.stream_key, hello.process
        self._greeted(link)
        self._go_on_without(self._links.of_earlier(link))
        if self._beacons is not None and link.agreement is not None:
            self._beacons.agree(link.agreement, hello, link.connection.host())
        if link.incoming:
            self._adopt(link.connection)
        self._offer_streams(link)
        self._better.opened(link)

    def _hand_over(
        self, peer: PeerId, seats: Seats, message: Message, tensors: Sequence[torch.Tensor]
    ) -> None:
        """Give a message to the seat that it is for; one of which nobody is here is nobody's."""
        ends = self._seats.get(seats.to)
        if ends is None:
            self.quotas.refused["messages to no seat"] += 1
        else:
            ends.on_message(name_of(peer, seats.of), message, tensors)

    def _say_here(self, seats: Seats, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        """Say something to a seat of this very process, soon; one that is not there cannot be told
        anything."""
        assert self._me is not None
        soon = asyncio.get_running_loop().call_soon
        if seats.to in self._seats:
            kept = [tensor.clone() for tensor in tensors]
            soon(self._hand_over, self._me, seats, message, kept)
        else:
            soon(self._send_failed, self._me, encode(message, tensors, seats))

    def _send_failed(self, peer: PeerId, outgoing: Outgoing) -> None:
        """Tell whoever has sent it."""
        of, to = outgoing.seats
        if of in self._seats:
            self._seats[of].on_send_failed(name_of(peer, to), outgoing.message)

    def _greeted(self, link: Link) -> None:
        link.greeted = True
        link.timer.cancel()
        link.connection.frames.limits = self.quotas.limits(link.quota)
        if link.quota.is_stranger:
            self._links.greeted()

    def _join(self, link: Link, join: Join) -> None:
        """Make what has come in a further connection of a link. Raises WireError when it is not."""
        peer, is_stranger = link.connection.peer, link.quota.is_stranger
        of = next(
            (other for other in self._links.of(peer) if other.stream_key == join.stream_key), None
        )
        takes_more = of is not None and len(of.joined) < self._streams - 1
        if not join.stream_key or of is None or of is link or not takes_more or is_stranger:
            raise WireError("it joins no link that takes another connection")
        self._forget(link)
        link.of = of
        self._greeted(link)
        of.joined.add(link)
        frames = FrameWriter()
        frames.push(encode(join))
        link.connection.write(frames.next_frames())

    def _offer_streams(self, link: Link) -> None:
        """Widen the link that is written to, when there is need and the other end takes more."""
        peer, name = link.connection.peer, link.connection.carrier_with_streams
        outbox = self._outboxes.get(peer)
        if outbox is None or outbox.connection is not link.connection:
            return
        if self._streams < 2 or not link.their_stream_key or name is None:
            return
        uplink = self._writing.uplink
        outbox.streams = Streams(
            outbox.frames,
            self._streams - 1,
            link.their_stream_key,
            partial(self._dial_again, peer, name),
            partial(self._broken, peer, outbox),
            self._spawn,
            None if uplink is None else partial(uplink.turn, outbox.share),
        )
        outbox.streams.pushed()

    async def _dial_again(self, peer: PeerId, carrier: str) -> Connection:
        """Open a further connection. Raises RunError or OSError."""
        if self._faults is not None:
            self._faults.check_not_cut(peer)
        return await self._dialer.dial_again(peer, carrier)

    def _forget(self, link: Link) -> None:
        """Forget a connection that is no link, or none any more."""
        self._links.discard(link)
        link.timer.cancel()
        if self._beacons is not None and link.agreement is not None:
            self._beacons.forget(link.agreement)

    def _ended(self, link: Link, reason: str) -> None:
        self.quotas.leave(link.quota)
        if link.of is not None:
            link.of.joined.discard(link)
            whole = link.connection.ended_well and link.connection.frames.is_between_messages
            if not whole and link.of in self._links:
                link.of.connection.end(f"a further connection of it broke: {reason}")
            return
        self._forget(link)
        self._better.ended(link)
        for further in list(link.joined):
            further.connection.abort()
        peer = link.connection.peer
        outbox = self._outboxes.get(peer)
        if outbox is None or outbox.connection is not link.connection:
            return
        another = next((other for other in self._links.of(peer) if other.greeted), None)
        if another is None:
            self._broken(peer, outbox, reason)
        else:
            self._write_to_another(outbox, another)

    def _write_to_another(self, outbox: Outbox, link: Link) -> None:
        """Go on where the connection that was written to has broken and there is another one. What
        was under way comes back. The peer is not lost: what it has not got is said again when no
        answer comes."""
        peer = link.connection.peer
        outbox.stay()
        lost = [*outbox.frames.take_begun(), *outbox.on_streams()]
        if outbox.streams is not None:
            outbox.streams.abort()
            outbox.streams = None
        outbox.connection = link.connection
        self._offer_streams(link)
        for outgoing in lost:
            self._send_failed(peer, outgoing)
        self._go_on_writing(peer, outbox)
        self._better.look_for(peer, outbox)

    def _adopt(self, connection: Connection) -> None:
        """Write to an incoming connection if there is none to this peer yet."""
        self._dialer.reached(connection.peer)
        outbox = self._writing.outbox(connection.peer)
        if outbox.connection is None:
            outbox.connection = connection
            self._better.look_for(connection.peer, outbox)

    def _broken(self, peer: PeerId, outbox: Outbox, reason: str) -> None:
        """Report what was not written, and the loss, once."""
        if self._closing or self._outboxes.get(peer) is not outbox:
            return
        del self._outboxes[peer]
        outbox.stay()
        if outbox.task is not None and outbox.task is not asyncio.current_task():
            outbox.task.cancel()
        if outbox.connection is not None:
            outbox.connection.abort()
        late = outbox.late.take_all() if outbox.late is not None else []
        unsent = [*outbox.frames.unsent(), *outbox.on_streams()]
        if outbox.streams is not None:
            outbox.streams.abort()
        for outgoing in [*unsent, *late]:
            self._send_failed(peer, outgoing)
        is_nobody = self.quotas.was_stranger(peer) and not unsent and not late
        if not is_nobody:  # whom nobody has written to, nobody misses
            self._on_lost(peer, printable(reason))

    def _go_on_without(self, links: Sequence[Link]) -> None:
        """Give up links to a process that is gone, though they have not broken."""
        for link in links:
            peer = link.connection.peer
            outbox = self._outboxes.get(peer)
            if outbox is not None and outbox.connection is link.connection:
                self._broken(peer, outbox, "it has started anew")
            link.connection.abort()

    def _evict(self, peer: PeerId, reason: str) -> None:
        """End a peer's links soon: another one needs the memory, and is in the middle of a
        message."""
        self.quotas.refused["memory"] += 1
        asyncio.get_running_loop().call_soon(self._end_all, peer, reason)

    def _end_all(self, peer: PeerId, reason: str) -> None:
        for link in self._links.of(peer):
            link.connection.end(reason)

    def _cut(self, peer: PeerId) -> None:
        """Drop all connections of a peer as they are, with what is in them."""
        for link in self._links.of(peer):
            link.connection.abort()
        outbox = self._outboxes.get(peer)
        if outbox is not None:
            self._broken(peer, outbox, "the link was cut")

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        """A task of ours; a bug in it reaches the loop's exception handler."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)

        def done(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                task.get_loop().call_exception_handler(
                    {"message": "a link failed", "exception": error, "task": task}
                )

        task.add_done_callback(done)
        return task
