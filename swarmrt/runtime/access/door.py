"""The door of a process: what others have shown it, and what it therefore takes from them.

Links ask it once for every greeting and once for every message, before a payload gets memory.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Iterable

from swarmrt.ids import BETWEEN_PROCESSES, NO_SEAT, PeerId, Seats
from swarmrt.messages import Message
from swarmrt.permissions import OF_PROCESSES, TO_PEER, TO_TRAINER, Sender, senders
from swarmrt.trust.checking import CLOCK_SLACK_S, Checker, Credential
from swarmrt.trust.papers import Papers

MOST_PAIRS = 1024  # of seats, of which it is remembered what they are to each other
_NOBODY: frozenset[Sender] = frozenset()
MOST_GONE = 8192  # peers without a link, of which it is remembered what they have shown


class Door(ABC):
    """The decisions about who is let in, as what, and what may come through."""

    run: str  # as greetings name it

    @abstractmethod
    def shown(self) -> str:
        """Return what this process shows in its greetings."""

    @abstractmethod
    def greet(self, peer: PeerId, token: str) -> None:
        """Look at what a peer shows. Raises AccessError when it is false."""

    @abstractmethod
    def came(self, peer: PeerId) -> None:
        """Note that a peer has a link from now on."""

    @abstractmethod
    def left(self, peer: PeerId) -> None:
        """Note that it has none any more."""

    @abstractmethod
    def is_known(self, peer: PeerId) -> bool:
        """Return whether the peer has shown that it is the trainer, a member or invited."""

    def num_seats(self, peer: PeerId) -> int:
        """Return for how many seats a peer may speak, at least one."""
        return 1

    @abstractmethod
    def may_say(self, peer: PeerId, kind: type[Message], seats: Seats = BETWEEN_PROCESSES) -> bool:
        """Return whether messages of this kind are taken from the peer, between these seats."""


class UnguardedDoor(Door):
    """A door for measuring links alone: whoever names the same run may say anything."""

    def __init__(self, run: str) -> None:
        self.run = run

    def shown(self) -> str:
        return ""

    def greet(self, peer: PeerId, token: str) -> None:
        """Take everybody."""

    def came(self, peer: PeerId) -> None:
        """Remember nobody."""

    def left(self, peer: PeerId) -> None:
        """Forget nothing."""

    def is_known(self, peer: PeerId) -> bool:
        return True

    def may_say(self, peer: PeerId, kind: type[Message], seats: Seats = BETWEEN_PROCESSES) -> bool:
        return True


class GuardedDoor(Door):
    """The door of a process of a run."""

    def __init__(
        self,
        papers: Papers,
        me: PeerId,
        *,
        num_stages: int | None = None,
        is_trainer: bool = False,
        is_open: bool = False,
        barred: set[PeerId] | None = None,
        refused: Counter[str] | None = None,
    ) -> None:
        """In a run that `is_open`, strangers count as invited. `barred` are those who were turned
        out, to be shared with the directory; what is not taken is counted in `refused`."""
        self.run, self._me, self.papers = str(papers.run), me, papers
        self._num_stages = num_stages
        self._table = TO_TRAINER if is_trainer else TO_PEER
        self._stranger = Sender.INVITED if is_open else Sender.STRANGER
        self._checker = Checker(papers.run)
        self._credentials: dict[PeerId, Credential] = {}
        self._linked: set[PeerId] = set()
        self._gone: OrderedDict[PeerId, None] = OrderedDict()  # the newest last
        self._senders: dict[Seats, frozenset[Sender]] = {}  # of members at those seats
        self._barred = set() if barred is None else barred
        self.refused: Counter[str] = Counter() if refused is None else refused

    def shown(self) -> str:
        return self.papers.show(self._me, time.time())

    def greet(self, peer: PeerId, token: str) -> None:
        """Look at what a peer shows. One that shows what has ended is a stranger: it may knock
        again."""
        if not token or peer in self._barred:
            return
        credential = self._checker.credential(token, peer, time.time(), late_s=math.inf)
        earlier = self._credentials.get(peer)
        if earlier is None or not earlier.stages or credential.until >= earlier.until:
            self._credentials[peer] = credential
        if peer not in self._linked:
            self._is_gone(peer)

    def came(self, peer: PeerId) -> None:
        self._linked.add(peer)
        self._gone.pop(peer, None)

    def left(self, peer: PeerId) -> None:
        self._linked.discard(peer)
        if peer in self._credentials:
            self._is_gone(peer)

    def _is_gone(self, peer: PeerId) -> None:
        """Remember the newest of those without a link; of links there are only so many."""
        self._gone[peer] = None
        self._gone.move_to_end(peer)
        if len(self._gone) > MOST_GONE:
            oldest, _ = self._gone.popitem(last=False)
            del self._credentials[oldest]

    def credential(self, peer: PeerId) -> Credential:
        """Return what a peer has shown; nothing but its name when that is all."""
        return self._credentials.get(peer, Credential(peer))

    def bar(self, peers: Iterable[PeerId]) -> None:
        """Turn peers out, whatever they show."""
        for peer in peers:
            self._barred.add(peer)
            self._credentials.pop(peer, None)
            self._gone.pop(peer, None)

    def is_known(self, peer: PeerId) -> bool:
        credential = self._credentials.get(peer)
        return credential is not None and self._holds(credential)

    def num_seats(self, peer: PeerId) -> int:
        return max(1, len(self.credential(peer).stages))

    def is_member(self, peer: PeerId) -> bool:
        """Return whether a peer has shown a membership that holds."""
        return Sender.MEMBER in self._is(peer, BETWEEN_PROCESSES)

    def may_say(self, peer: PeerId, kind: type[Message], seats: Seats = BETWEEN_PROCESSES) -> bool:
        may = not self._table.get(kind, set()).isdisjoint(self._is(peer, seats))
        may = may and (seats == BETWEEN_PROCESSES or kind not in OF_PROCESSES)
        if not may:
            self.refused[kind.__name__] += 1
        return may

    def _is(self, peer: PeerId, seats: Seats) -> frozenset[Sender]:
        credential = self._credentials.get(peer)
        if peer in self._barred:
            return frozenset({Sender.STRANGER})
        if credential is None or not self._holds(credential):
            return frozenset({self._stranger})
        if credential.is_trainer:
            return frozenset({Sender.TRAINER})
        if credential.invitation is not None:
            return frozenset({Sender.INVITED})
        if seats.of != NO_SEAT and seats.of not in credential.stages:
            return _NOBODY
        found = self._senders.get(seats)
        if found is None:
            if len(self._senders) >= MOST_PAIRS:
                self._senders.clear()
            found = self._senders[seats] = senders(seats, self._num_stages)
        return found

    @staticmethod
    def _holds(credential: Credential) -> bool:
        return credential.until + CLOCK_SLACK_S > time.time()
