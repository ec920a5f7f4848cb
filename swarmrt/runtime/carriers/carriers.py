"""Carriers of links: a connection to one peer, and the way to get one.

There are two: `libp2p_carrier` reaches peers behind NAT, `direct` is many times faster where it can
be reached. Both authenticate the peer and encrypt what is said. `links` does not know which it has.
"""

from __future__ import annotations

import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from swarmrt.errors import NoCommonVersion, WireError
from swarmrt.ids import PeerId
from swarmrt.messages import Message
from swarmrt.runtime.limits.downlink import Downlink
from swarmrt.runtime.limits.sparing import Sparing
from swarmrt.runtime.reach.addresses import Reach
from swarmrt.wire.reading import FrameReader, Received

log = logging.getLogger("swarmrt.carriers")
log.addFilter(Sparing())

DIAL_S = 10.0  # with somebody of whom it is not known how far away he is

OnReceived = Callable[[Message, Sequence[torch.Tensor]], None]
OnEnd = Callable[[str], None]  # the reason


def _ignore(message: Message, tensors: Sequence[torch.Tensor]) -> None:
    """Take a message of a connection from which nothing is taken any more."""


class Connection(ABC):
    """Ordered bytes both ways, to and from a peer whose id is proved. `begin` first."""

    carrier = ""  # the name of the one that it is of
    carrier_with_streams: str | None = None  # which opens further connections for one link

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.ended_well = False  # whether the other end has closed it, and nothing is missing
        self.frames: FrameReader
        self._on_received: OnReceived
        self._on_end: OnEnd | None = None  # none yet, or none any more
        self._together: AbstractContextManager[None] = nullcontext()
        self.downlink: Downlink | None = None  # of the process, where that is bounded

    def begin(
        self,
        frames: FrameReader,
        on_received: OnReceived,
        on_end: OnEnd,
        together: AbstractContextManager[None] | None = None,
    ) -> None:
        """Take messages from now on, those of one read within the context `together`. `on_end` is
        called once, when nothing more can come."""
        self.frames, self._on_received, self._on_end = frames, on_received, on_end
        self._together = together or nullcontext()
        self.start_reading()

    @abstractmethod
    def start_reading(self) -> None: ...

    @property
    @abstractmethod
    def may_write(self) -> bool:
        """Return whether what is written now goes out, and does not pile up here."""

    @abstractmethod
    def write(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Send these bytes; they must stay as they are until they are gone. `drain` next."""

    @abstractmethod
    async def drain(self) -> None:
        """Wait until more may be written. Raises OSError when the connection is lost."""

    @abstractmethod
    def close(self) -> None:
        """End it once what was written has gone out. May be called again."""

    @abstractmethod
    def abort(self) -> None:
        """End it as it is."""

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait after `close` until nothing of the connection is left. That takes seconds at
        most."""

    def socket(self) -> socket.socket | None:
        """The TCP socket to the peer itself, if there is one: to be looked at only."""
        return None

    def host(self) -> str | None:
        """The IP address at its other end, where that is the peer's own."""
        tcp = self.socket()
        try:
            return str(tcp.getpeername()[0]) if tcp is not None else None
        except OSError:
            return None  # it has just been lost

    def end(self, reason: str) -> None:
        """End it as it is, and say so unless that has been done. What was not whole is freed at
        once; and nothing waits for the other end to read what was written, for it may never."""
        on_end, self._on_end = self._on_end, None
        self.abort()
        if on_end is not None:
            on_end(reason)
            self.frames.drop()
            self._on_received = _ignore  # or it and its link would be a circle

    def take(self, messages: Iterator[Received]) -> None:
        """Hand over what the frame reader found. Nonsense ends this connection and no other."""
        try:
            with self._together:
                for message, tensors in messages:
                    if self._on_end is None:
                        return
                    self._on_received(message, tensors)
        except NoCommonVersion as error:
            log.warning("closing the link to %s: %s", self.peer, error)
            self._part(str(error))
        except WireError as error:
            log.warning("closing the link to %s, which broke the protocol: %s", self.peer, error)
            self.end(f"broke the protocol: {error}")

    def _part(self, reason: str) -> None:
        """End it once what was written has gone out: by our greeting the other end sees why, too.
        Nothing more is taken."""
        on_end = self._on_end
        if on_end is not None:
            self._on_end = lambda _: on_end(reason)
        self.frames.drop()
        self._on_received = _ignore
        self.close()


Welcome = Callable[[Connection], None]


class Carrier(ABC):
    """A way to get connections. `start` first, `close` at the end."""

    name: str

    @abstractmethod
    async def start(self, welcome: Welcome) -> None:
        """Take incoming connections from now on. `welcome` begins or closes them."""

    @abstractmethod
    def addresses(self) -> list[str]:
        """Return the addresses at which others reach this process by this carrier."""

    @abstractmethod
    def may_reach(self, addresses: Sequence[str]) -> bool:
        """Return whether a peer of these addresses can be dialed at all."""

    @abstractmethod
    def within(self, reach: Reach, addresses: Sequence[str]) -> list[str]:
        """Return those of a peer's addresses that may be dialed from here."""

    @abstractmethod
    async def dial(
        self, peer: PeerId, addresses: Sequence[str], patience_s: float = DIAL_S
    ) -> Connection:
        """Connect to the peer within so long. Raises RunError or OSError when it is not reached.

        Peer ids and addresses come from others, so they may be nonsense.
        """

    @abstractmethod
    async def close(self) -> None:
        """Take and begin no more connections. Those that there are have been closed before."""
