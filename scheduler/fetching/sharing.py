"""The chunks of a file, shared out among its donors.

Each donor has two to give, and whoever would give one first is asked first: so each gives what its
link carries. In the end, what a slow one owes is asked of a faster one as well.
"""

from __future__ import annotations

import math

from swarmrt.ids import PeerId
from swarmrt.recorded import Recorded
from swarmrt.scheduler.fetching.chunks import Chunks
from swarmrt.scheduler.fetching.donors import OF_ONE, Donor
from swarmrt.scheduler.timing.estimate import Estimate
from swarmrt.scheduler.timing.times import CHUNK_S

IN_ALL = 8  # chunks asked for at once, or being written: so much memory is taken
UNHURRIED = 1  # the same, where nobody waits for the file: what comes beside it waits for one chunk
HEDGE = 2  # times as fast is whoever is asked for a chunk that another one owes


class Ask(Recorded, frozen=True):
    """Ask a donor for these bytes; the first byte alone is asked for to learn which file it has."""

    donor: PeerId
    offset_bytes: int
    length_bytes: int


class Sharing:
    def __init__(self, chunks: Chunks, at_once: int) -> None:
        self._at_once = at_once
        self.donors: dict[PeerId, Donor] = {}
        self.hedge_at = math.inf  # when what somebody owes is to be asked of others, too
        self._chunks = chunks
        self._chunk_time = Estimate()  # of all donors

    def release(self, donor: Donor) -> None:
        """Let others be asked for what it owes."""
        self._chunks.to_be_asked(donor.owes)
        donor.owes.clear()

    def gave(self, donor: Donor, offset: int, now: float) -> None:
        """Note that a chunk has come."""
        seconds = donor.gave(offset, now)
        if seconds is not None:
            self._chunk_time.add(seconds)

    def fill(self, usable: list[Donor], now: float) -> list[Ask]:
        """Ask for as much as there is room for."""
        asks: list[Ask] = []
        offset = self._chunks.next_unasked(self._is_owed)
        while offset is not None and self._has_room():
            donor = self._soonest(usable)
            if donor is None:
                return asks
            asks.append(self._ask(donor, offset, now))
            offset = self._chunks.next_unasked(self._is_owed)
        return asks if offset is not None else asks + self._hedge(usable, now)

    def _hedge(self, usable: list[Donor], now: float) -> list[Ask]:
        """Ask faster donors, too, for what slow ones owe."""
        asks: list[Ask] = []
        for owner in self.donors.values():
            others = [donor for donor in usable if donor is not owner]
            for offset in owner.owes:
                other = self._soonest(others) if self._has_room() else None
                is_coming = self._chunks.is_here(offset) or self._owners(offset) > 1
                if other is None or is_coming:
                    continue
                within_s = HEDGE * other.takes_s(self._usual_s)
                at = owner.late_at(offset, within_s, self._usual_s, now)
                if now >= at:
                    asks.append(self._ask(other, offset, now))
                else:
                    self.hedge_at = min(self.hedge_at, at)
        return asks

    def _ask(self, donor: Donor, offset: int, now: float) -> Ask:
        length = self._chunks.length(offset)
        donor.ask(offset, length, now)
        return Ask(donor.peer, offset, length)

    def _soonest(self, usable: list[Donor]) -> Donor | None:
        """Return whoever would have given another chunk first."""
        free = (donor for donor in usable if len(donor.owes) < OF_ONE)
        return min(free, key=lambda donor: donor.takes_s(self._usual_s), default=None)

    @property
    def _usual_s(self) -> float:
        """Return what a chunk takes a donor of which no other is known."""
        return self._chunk_time.mean_s if self._chunk_time.samples else CHUNK_S

    def _owners(self, offset: int) -> int:
        return sum(offset in donor.owes for donor in self.donors.values())

    def _is_owed(self, offset: int) -> bool:
        return self._owners(offset) > 0

    def _has_room(self) -> bool:
        owed = sum(len(donor.owes) for donor in self.donors.values())
        return owed + len(self._chunks.writing) < self._at_once

    def validate(self) -> None:
        """Check what must hold between events."""
        owed = [offset for donor in self.donors.values() for offset in donor.owes]
        assert len(owed) <= self._at_once
        for donor in self.donors.values():
            donor.validate()
        self._chunks.validate(set(owed))
