"""Links: persistent, encrypted, framed streams to other processes.

One libp2p stream a pair, used both ways; whoever needs it first dials. When both dial at once
there are two: both are read, and each side goes on writing to the one it had first. The other
end's identity is what libp2p has authenticated.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo

from swarmrt.errors import RunError, WireError
from swarmrt.ids import PeerId
from swarmrt.messages import Message
from swarmrt.runtime.daemon import Daemon
from swarmrt.runtime.faults import Late, LinkFaults
from swarmrt.wire.frames import PROTOCOL, FrameReader, FrameWriter, Hello, Outgoing, encode

log = logging.getLogger("swarmrt.links")

STREAM = "swarmrt/1"
DIAL_S = 10.0  # for one dial
DIALS = 3
HELLO_S = 10.0
READ_BYTES = 1 << 20
MAX_LINKS = 512
MAX_INCOMING = 8  # of one peer: it needs one, and more while broken ones are found out
MAX_QUEUED_BYTES = 1 << 30  # to one peer; more means that it does not read
MAX_QUEUED_MESSAGES = 100_000

OnMessage = Callable[[PeerId, Message, Sequence[torch.Tensor]], None]
OnLost = Callable[[PeerId, str], None]
OnSendFailed = Callable[[PeerId, Message], None]


class Outbox:
    """What is on its way to one peer."""

    def __init__(self) -> None:
        self.frames = FrameWriter()
        self.wake = asyncio.Event()
        self.writer: StreamWriter | None = None
        self.task: asyncio.Task[None] | None = None
        self.late: Late | None = None  # once the link has been slow

    def __len__(self) -> int:
        return len(self.frames) + (len(self.late) if self.late is not None else 0)


class Links:
    """All links of a process. `start` first, `close` at the end."""

    def __init__(
        self,
        daemon: Daemon,
        run: str,
        max_message_bytes: int,
        on_message: OnMessage,
        on_lost: OnLost,
        on_send_failed: OnSendFailed,
        faults: LinkFaults | None = None,
    ) -> None:
        self._daemon, self._run, self._max_bytes = daemon, run, max_message_bytes
        self._on_message, self._on_lost = on_message, on_lost
        self._on_send_failed = on_send_failed
        self._faults = faults
        self._addresses: dict[PeerId, tuple[str, ...]] = {}
        self._outboxes: dict[PeerId, Outbox] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._incoming_of: Counter[PeerId] = Counter()
        self._streams: dict[StreamWriter, PeerId] = {}  # open ones
        self._closing = False
        if faults is not None:
            faults.on_cut(self._cut)

    async def start(self) -> None:
        """Take incoming links from now on."""
        await self._daemon.p2p.add_binary_stream_handler(STREAM, self._incoming)

    def know(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Where a peer can be dialed, by its record."""
        self._addresses[peer] = tuple(addresses)

    def send(self, peer: PeerId, message: Message, tensors: Sequence[torch.Tensor] = ()) -> None:
        """Queue it; never blocks. Tensors must stay as they are until they are written.

        What cannot be sent comes back through `on_send_failed`, later. Raises RunError for a
        message that no process of this run would take: sending it again cannot help.
        """
        if self._closing:
            return
        outgoing = encode(message, tensors)
        if outgoing.left_bytes > self._max_bytes:
            raise RunError(
                f"{type(message).__name__} has {outgoing.left_bytes} bytes, but "
                f"links.max_message_bytes is {self._max_bytes}; raise it for this run"
            )
        outbox = self._outboxes.setdefault(peer, Outbox())
        frames = outbox.frames
        if frames.queued_bytes > MAX_QUEUED_BYTES or len(frames) > MAX_QUEUED_MESSAGES:
            asyncio.get_running_loop().call_soon(self._on_send_failed, peer, message)
            return
        if self._faults is not None and self._is_late(peer, outbox, outgoing):
            return
        self._push(peer, outbox, outgoing)

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything queued is written, but not longer than this."""
        try:
            async with asyncio.timeout(timeout_s):
                while any(len(outbox) for outbox in self._outboxes.values()):
                    await asyncio.sleep(0.01)  # only at the very end of a process
        except TimeoutError:
            log.debug("messages were left unsent")

    async def close(self) -> None:
        """Close all links. Nothing is reported as lost by it."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for outbox in self._outboxes.values():
            if outbox.late is not None:
                outbox.late.take_all()
        self._outboxes.clear()

    # ------------------------------------------------------------------ writing

    def _push(self, peer: PeerId, outbox: Outbox, outgoing: Outgoing) -> None:
        outbox.frames.push(outgoing)
        outbox.wake.set()
        if outbox.task is None:
            outbox.task = self._spawn(self._write(peer, outbox))

    def _is_late(self, peer: PeerId, outbox: Outbox, outgoing: Outgoing) -> bool:
        """On a slow link it is pushed later, and after what is late already."""
        assert self._faults is not None
        delay_s = self._faults.delay_s(peer)
        if not delay_s and not outbox.late:
            return False
        if outbox.late is None:
            outbox.late = Late(partial(self._push, peer, outbox))
        outbox.late.hold(outgoing, delay_s)
        return True

    async def _write(self, peer: PeerId, outbox: Outbox) -> None:
        """Dial if need be, then write frame by frame, as fast as the other end reads."""
        try:
            if outbox.writer is None:
                await self._dial(peer, outbox)
            assert outbox.writer is not None
            while True:
                while not len(outbox.frames):
                    outbox.wake.clear()
                    await outbox.wake.wait()
                buffers, _ = outbox.frames.next_frame()
                for buffer in buffers:
                    outbox.writer.write(buffer)
                await outbox.writer.drain()
        except (OSError, RunError, asyncio.IncompleteReadError) as error:
            self._broken(peer, outbox, str(error) or type(error).__name__)

    async def _dial(self, peer: PeerId, outbox: Outbox) -> None:
        """Open a stream to the peer. Raises RunError when it cannot be reached.

        Peer ids and addresses come from others, so they may be nonsense. A peer that cannot be
        dialed may have dialed us meanwhile, which is as good.
        """
        for attempt in range(1, DIALS + 1):
            try:
                if self._faults is not None:
                    self._faults.check_not_cut(peer)
                async with asyncio.timeout(DIAL_S):
                    if self._addresses.get(peer):
                        await self._daemon.connect(peer, self._addresses[peer])
                    reader, writer = await self._daemon.open_stream(peer, STREAM)
                break
            except (OSError, RunError) as error:
                if outbox.writer is not None:
                    return
                if attempt == DIALS:
                    raise RunError(str(error) or f"{peer} did not answer") from None
                await asyncio.sleep(0.1 * 2**attempt)  # a peer that starts is not there at once
        if outbox.writer is None:
            outbox.writer = writer
        self._say_hello(writer)
        self._spawn(self._read(peer, reader, writer))

    def _say_hello(self, writer: StreamWriter) -> None:
        frames = FrameWriter()
        frames.push(encode(Hello(PROTOCOL, self._run)))
        for buffer in frames.next_frame()[0]:
            writer.write(buffer)

    # ------------------------------------------------------------------ reading

    async def _incoming(self, info: StreamInfo, reader: StreamReader, writer: StreamWriter) -> None:
        """Another process has dialed."""
        peer = PeerId(info.peer_id.to_base58())
        crowded = len(self._tasks) > 2 * MAX_LINKS or self._incoming_of[peer] >= MAX_INCOMING
        cut = self._faults is not None and self._faults.is_cut(peer)
        if self._closing or crowded or cut:
            writer.close()
            return
        self._say_hello(writer)
        self._incoming_of[peer] += 1
        reading = self._spawn(self._read(peer, reader, writer, incoming=True))
        reading.add_done_callback(lambda _: self._incoming_of.subtract([peer]))

    async def _read(
        self, peer: PeerId, reader: StreamReader, writer: StreamWriter, incoming: bool = False
    ) -> None:
        """Take messages until the stream ends. Nonsense closes this link and no other."""
        frames = FrameReader(self._max_bytes)
        self._streams[writer] = peer
        greeted = False
        reason = "reading from it failed"  # a bug, unless one of the ends below is reached
        try:
            while True:
                async with asyncio.timeout(None if greeted else HELLO_S):
                    data = await reader.read(READ_BYTES)
                if not data:
                    reason = "the link was closed"
                    break
                for message, tensors in frames.feed(data):
                    if greeted:
                        self._on_message(peer, message, tensors)
                    else:
                        self._check_hello(message)
                        greeted = True
                        if incoming:
                            self._adopt(peer, writer)
        except WireError as error:
            reason = f"broke the protocol: {error}"
            log.warning("closing the link to %s, which %s", peer, reason)
        except TimeoutError:
            reason = f"did not say hello in {HELLO_S:.0f} s"
        except OSError as error:
            reason = str(error) or type(error).__name__
        finally:
            del self._streams[writer]
            writer.close()
            outbox = self._outboxes.get(peer)
            if outbox is not None and outbox.writer is writer:
                self._broken(peer, outbox, reason)

    def _check_hello(self, message: Message) -> None:
        """Raises WireError when the other end is not of this run."""
        if not isinstance(message, Hello):
            raise WireError(f"{type(message).__name__} came before the hello")
        if (message.protocol, message.run) != (PROTOCOL, self._run):
            raise WireError(
                f"it is of run {message.run!r:.80} and protocol {message.protocol}, "
                f"this process of run {self._run!r} and protocol {PROTOCOL}"
            )

    def _adopt(self, peer: PeerId, writer: StreamWriter) -> None:
        """Write to an incoming stream if there is none to this peer yet."""
        outbox = self._outboxes.setdefault(peer, Outbox())
        if outbox.writer is None:
            outbox.writer = writer

    def _broken(self, peer: PeerId, outbox: Outbox, reason: str) -> None:
        """Report what was not written, and the loss, once."""
        if self._closing or self._outboxes.get(peer) is not outbox:
            return
        del self._outboxes[peer]
        if outbox.task is not None and outbox.task is not asyncio.current_task():
            outbox.task.cancel()
        if outbox.writer is not None:
            outbox.writer.close()
        late = outbox.late.take_all() if outbox.late is not None else []
        for message in [*outbox.frames.unsent(), *(outgoing.message for outgoing in late)]:
            self._on_send_failed(peer, message)
        self._on_lost(peer, reason)

    def _cut(self, peer: PeerId) -> None:
        """Drop all streams of a peer as they are, with what is in them."""
        for writer, its_peer in list(self._streams.items()):
            if its_peer == peer:
                writer.transport.abort()
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
