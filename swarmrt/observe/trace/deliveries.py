"""Messages between the processes of a run: which that left one log is which that came to another.

Logs are read twice. The first reading collects when each message left and came, the second looks
the counterpart up by counting along. Both are of the same files in the same order.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from swarmrt.messages import Message
from swarmrt.observe.log import read_records
from swarmrt.scheduler.events import Received
from swarmrt.scheduler.instructions import Send
from swarmrt.scheduler.recording import Header, Record
from swarmrt.scheduler.settings import AnySettings, PeerSettings


@dataclass
class Incarnation:
    """A process from its start to its end. One that was started again has another clock."""

    me: str
    stage: int | None  # None for the trainer
    start: int  # 1 for the first of this identity
    first: float = 0.0  # seconds of its own clock, of its first and last record
    last: float = 0.0
    records: int = 0


@dataclass(frozen=True)
class Delivery:
    """A message that came. `number` tells it from all others, `by` is the receiver."""

    number: int
    by: int
    at: float  # seconds, by the receiver's clock


class Talk:
    """The messages of one process to another, in order. They take 20 bytes each on either side."""

    def __init__(self) -> None:
        self._sent_keys, self._got_keys = array("q"), array("q")
        self._sent_at, self._got_at = array("d"), array("d")
        self._sent_by, self._got_by = array("i"), array("i")
        self._arrival = array("q")  # by message sent: the one that came, or -1
        self._origin = array("q")  # by message that came: the one sent, or -1
        self._base = 0
        self._sent_again = self._got_again = 0

    def sent(self, message: Message, at: float, by: int) -> None:
        self._sent_keys.append(_key(message))
        self._sent_at.append(at)
        self._sent_by.append(by)

    def got(self, message: Message, at: float, by: int) -> None:
        self._got_keys.append(_key(message))
        self._got_at.append(at)
        self._got_by.append(by)

    def match(self, base: int) -> int:
        """Equal messages pair up in order. Numbers deliveries from `base`; the next free one."""
        self._base = base
        unmatched: dict[int, deque[int]] = {}
        for index, key in enumerate(self._sent_keys):
            unmatched.setdefault(key, deque()).append(index)
        self._arrival = array("q", [-1]) * len(self._sent_keys)
        self._origin = array("q", [-1]) * len(self._got_keys)
        for index, key in enumerate(self._got_keys):
            waiting = unmatched.get(key)
            if waiting:
                origin = waiting.popleft()
                self._arrival[origin], self._origin[index] = index, origin
        return base + len(self._sent_keys)

    def shortest(self) -> dict[tuple[int, int], float]:
        """Return the least of (time it came - time it left) by sender and receiver, each by its
        clock.

        What is said again, or comes twice, counts from the first time it was said, which can make
        the difference too large but never too small. What two incarnations said is left out.
        """
        said: dict[int, int] = {}
        for index, key in enumerate(self._sent_keys):
            first = said.setdefault(key, index)
            if first >= 0 and self._sent_by[first] != self._sent_by[index]:
                said[key] = -1
        least: dict[tuple[int, int], float] = {}
        for index, key in enumerate(self._got_keys):
            origin = said.get(key, -1)
            if origin >= 0:
                pair = self._sent_by[origin], self._got_by[index]
                delay = self._got_at[index] - self._sent_at[origin]
                least[pair] = min(delay, least.get(pair, delay))
        return least

    def next_sent(self) -> Delivery | None:
        """Return, in the second reading, what became of the next message that was sent."""
        index, self._sent_again = self._sent_again, self._sent_again + 1
        arrival = self._arrival[index]
        if arrival < 0:
            return None
        return Delivery(self._base + index, self._got_by[arrival], self._got_at[arrival])

    def next_got(self) -> int | None:
        """Return, in the second reading, the number of the next message that came, if it is
        known."""
        index, self._got_again = self._got_again, self._got_again + 1
        origin = self._origin[index]
        return None if origin < 0 else self._base + origin


def _key(message: Message) -> int:
    """Return a key that is equal on either side; of what is not a number as well."""
    return hash(repr(message))


class Deliveries:
    """All incarnations of all processes, and what they said to each other."""

    def __init__(self, logs: Sequence[Path]) -> None:
        self.incarnations: list[Incarnation] = []
        self.talks: dict[tuple[str, str], Talk] = {}  # by sender and receiver
        self._logs, self._lengths = logs, dict[Path, int]()
        self._starts: dict[str, int] = {}
        for number, record in self.records():
            if isinstance(record, Header):
                self._begin(record.settings)
            else:
                self._add(number, record)
        base = 0
        for talk in self.talks.values():
            base = talk.match(base)

    def records(self) -> Iterator[tuple[int, Header | Record]]:
        """All of them, each with the number of the incarnation that wrote it, from 0.

        Settings begin another one. Records that nobody's settings precede are left out; so are,
        in the second reading, those that a run has added since the first.
        """
        number = -1
        for log in self._logs:
            headed, length = False, 0
            for record in islice(read_records(log), self._lengths.get(log)):
                length += 1
                if isinstance(record, Header):
                    number, headed = number + 1, True
                if headed:
                    yield number, record
            self._lengths.setdefault(log, length)

    def _begin(self, settings: AnySettings) -> None:
        me = settings.me
        self._starts[me] = self._starts.get(me, 0) + 1
        stage = settings.stage if isinstance(settings, PeerSettings) else None
        self.incarnations.append(Incarnation(me, stage, self._starts[me]))

    def _add(self, number: int, record: Record) -> None:
        mine, now = self.incarnations[number], record.now
        mine.first, mine.last = (mine.first if mine.records else now), now
        mine.records += 1
        if isinstance(record.event, Received):
            self._talk(record.event.sender, mine.me).got(record.event.message, now, number)
        for instruction in record.instructions:
            if isinstance(instruction, Send):
                self._talk(mine.me, instruction.to).sent(instruction.message, now, number)

    def _talk(self, sender: str, receiver: str) -> Talk:
        talk = self.talks.get((sender, receiver))
        if talk is None:
            talk = self.talks[sender, receiver] = Talk()
        return talk

    def shortest(self) -> dict[tuple[int, int], float]:
        """Return the shortest deliveries over all pairs of incarnations; see Talk."""
        found: dict[tuple[int, int], float] = {}
        for talk in self.talks.values():
            found |= talk.shortest()
        return found
