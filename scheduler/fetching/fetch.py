"""A state that is fetched: which bytes of it are asked of whom, the same in all worlds.

Rules:
- Replicas are equal to the bit, so their files are equal to the byte, and chunks may come from any
  of them.
- A donor's word is not enough. How large the file is follows from the stage. Which file it is, most
  donors say. When what has come from several is not that, it is got from one after the other; when
  it is, and not what the swarm has agreed on, another file is tried.
- What has landed is not asked for again while somebody offers that file, also when all begins anew.
- Each donor gives as much as its link carries, and none holds up the end (`sharing`).
- Who is silent or away is asked again, ever less often, and what it owes is asked of others.
- While all are away, they are waited for as long as it took to get what has landed: so much would
  be lost. Everything else that is waited for has a deadline of its own.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from math import inf as _NEVER

from swarmrt.ids import PeerId
from swarmrt.recorded import Recorded
from swarmrt.scheduler.fetching.chunks import Chunks
from swarmrt.scheduler.fetching.donors import Donor, Standing
from swarmrt.scheduler.fetching.events import (
    ChunkCame,
    ChunkWritten,
    DonorLost,
    DonorRefused,
    DonorsAreLate,
    DonorsNamed,
    FetchEvent,
    FileChecked,
    Verdict,
)
from swarmrt.scheduler.fetching.sharing import IN_ALL, Ask, Sharing
from swarmrt.scheduler.timing.times import LATER_S, MOST_AWAY_S

MOST_DONORS = 16  # of one file: more are not asked
MOST_TIMES = 4  # that one donor is asked for as many bytes as the file has


class Keep(Recorded, frozen=True):
    """Write the chunk that has just come, and tell `written`."""

    offset_bytes: int


class Check(Recorded, frozen=True):
    """See whether what has landed has this digest and is what is wanted, and tell `checked`."""

    digest: str


class Fetched(Recorded, frozen=True):
    """The file is here, and is what was wanted."""

    digest: str


class GiveUp(Recorded, frozen=True):
    reason: str


Step = Ask | Keep | Check | Fetched | GiveUp
ALL_STEPS: tuple[type[Step], ...] = (Ask, Keep, Check, Fetched, GiveUp)


class Phase(enum.Enum):
    CHOOSING = "choosing"  # which file it is
    GETTING = "getting"
    CHECKING = "checking"
    OVER = "over"


class Fetching:
    """A file on its way from its donors. Each event returns what is to be done.

    Begin with `ask`; call `deadline_passed` at `wake_at`, which may change with every event.
    """

    def __init__(
        self,
        size_bytes: int,
        chunk_bytes: int,
        distrusted: set[PeerId] | None = None,
        at_once: int = IN_ALL,
    ) -> None:
        """`distrusted` are donors whose file was not what it had to be; it is added to. `at_once`
        chunks are asked for."""
        self.phase = Phase.OVER
        self.digest = ""  # of the file that is on its way
        self.chunks = Chunks(size_bytes, chunk_bytes)
        self._distrusted = set[PeerId]() if distrusted is None else distrusted
        self._sharing = Sharing(self.chunks, at_once)
        self._given_up: set[str] = set()  # files that are not it, or that nobody gives
        self._is_apart = False  # one donor at a time gives all that counts
        self._alone: PeerId | None = None  # that one
        self._took_s = self._at = 0.0  # for what has landed; until when that is counted
        self._decide_at = self._away_since = _NEVER
        self._reason = ""  # why nobody gives it

    @property
    def _donors(self) -> dict[PeerId, Donor]:
        return self._sharing.donors

    @property
    def wake_at(self) -> float:
        """Return when `deadline_passed` is to be called, at the latest."""
        if self.phase not in (Phase.CHOOSING, Phase.GETTING):
            return _NEVER
        deadlines = (donor.deadline for donor in self._donors.values())
        return min(self._decide_at, self._sharing.hedge_at, self._lost_at, *deadlines)

    # ------------------------------------------------------------------ events

    def handle(self, event: FetchEvent, now: float) -> list[Step]:
        """Return what is to be done about an event, whichever it is."""
        match event:
            case DonorsNamed(donors):
                return self.ask(donors, now)
            case ChunkCame(peer, offset, length, digest, total_bytes):
                return self.chunk_came(peer, offset, length, digest, total_bytes, now)
            case ChunkWritten(offset):
                return self.written(offset, now)
            case FileChecked(verdict, reason):
                return self.checked(verdict, reason, now)
            case DonorLost(peer, reason):
                return self.donor_lost(peer, reason, now)
            case DonorRefused(peer, reason):
                return self.donor_refused(peer, reason, now)
            case DonorsAreLate(came_bytes):
                return self.deadline_passed(dict(came_bytes), now)
        return []  # it has just begun

    def ask(self, donors: Iterable[PeerId], now: float) -> list[Step]:
        """Begin, or begin anew with what has landed.

        Donors that have given a wrong file before are asked when there is nobody else.
        """
        named = list(dict.fromkeys(donors))
        trusted = [peer for peer in named if peer not in self._distrusted] or named
        known, self._at = self._donors, now
        for donor in known.values():
            self._sharing.release(donor)
        trusted = trusted[:MOST_DONORS]
        self._sharing.donors = {peer: known.get(peer) or Donor(peer) for peer in trusted}
        self._given_up.clear()
        self._alone, self._decide_at, self._away_since = None, _NEVER, _NEVER
        self._reason, self.phase = "nobody is known to have it", Phase.CHOOSING
        for donor in self._donors.values():
            donor.begin_again()
        return [self._ask_offer(donor, now) for donor in self._donors.values()] or self._go_on(now)

    def chunk_came(
        self, peer: PeerId, offset: int, length: int, digest: str, total_bytes: int, now: float
    ) -> list[Step]:
        """Take so many bytes of a file from a donor, or its offer, which is its first byte."""
        donor = self._donors.get(peer)
        if donor is None or donor.is_done_with or self.phase is Phase.OVER:
            return []
        if (offset, length) == (0, 1) and self.chunks.length(0) > 1:
            return self._offered(donor, digest, total_bytes, now)
        if offset not in donor.debts:
            return []
        if (digest, total_bytes) != (self.digest, self.chunks.size_bytes):
            steps = self._missed(donor, "holds another file than it has said", now)
            return steps + self._go_on(now)
        if length != self.chunks.length(offset):
            return self._expel(donor, "sent a chunk of the wrong size", now)
        return self._take(donor, offset, now)

    def written(self, offset: int, now: float) -> list[Step]:
        """Hear that a chunk is where it belongs."""
        if self.chunks.written(offset):
            self._took_s, self._at = self._took_s + now - self._at, now
        return self._go_on(now)

    def checked(self, verdict: Verdict, reason: str, now: float) -> list[Step]:
        """Hear what the file is that has landed, and what is wrong with it."""
        if self.phase is not Phase.CHECKING:
            return []
        if verdict == "right":
            self.phase = Phase.OVER
            return [Fetched(self.digest)]
        self._reason, self.phase = reason, Phase.GETTING
        gave = Counter(self.chunks.given.values())
        if verdict == "other":
            liars = {peer for peer, donor in self._donors.items() if donor.digest == self.digest}
            self._given_up.add(self.digest)
        else:
            liars = set(gave) if len(gave) == 1 else set()
            self._is_apart = True
        for peer in liars & self._donors.keys():
            self._sharing.release(self._donors[peer])
            self._donors[peer].expel()
        self._distrusted |= liars
        self._stand_alone(None if liars else max(gave, key=lambda peer: gave[peer]))
        return self._go_on(now)

    def donor_lost(self, peer: PeerId, reason: str, now: float) -> list[Step]:
        """Hear that a donor cannot be reached, or that its link has broken."""
        donor = self._donors.get(peer)
        if donor is None or self.phase is Phase.OVER:
            return []
        if donor.standing not in (Standing.ASKED, Standing.OFFERING):
            return []
        self._sharing.release(donor)
        self._reason = f"{peer} {reason}, and there is no other donor"
        donor.leave(now)
        return self._go_on(now)

    def donor_refused(self, peer: PeerId, reason: str, now: float) -> list[Step]:
        """Hear that a donor does not have the file, or does not give it."""
        donor = self._donors.get(peer)
        if donor is None or donor.is_done_with or self.phase is Phase.OVER:
            return []
        return self._expel(donor, reason, now)

    def deadline_passed(self, came_bytes: Mapping[PeerId, int], now: float) -> list[Step]:
        """See who is late. `came_bytes` tells how much of states has come from each donor so far,
        also of chunks that are not whole: what still moves is waited for."""
        steps: list[Step] = []
        for donor in self._donors.values():
            donor.looked_at(came_bytes.get(donor.peer, 0), now)
            if now < donor.deadline:
                continue
            if donor.standing is Standing.AWAY:
                steps.append(self._ask_offer(donor, now))
            else:
                steps += self._missed(donor, f"has not answered {donor.misses + 1} times", now)
        return steps + self._go_on(now)

    # ------------------------------------------------------------------ which file, and from whom

    def _go_on(self, now: float) -> list[Step]:
        """Do whatever has become possible."""
        self._sharing.hedge_at = _NEVER
        if self.phase is Phase.CHOOSING:
            self._choose(now)
        if self.phase is Phase.GETTING and self.chunks.are_all_here:
            self.phase = Phase.CHECKING
            return [Check(self.digest)]
        if self.phase not in (Phase.CHOOSING, Phase.GETTING):
            return []
        usable = self._usable() if self.phase is Phase.GETTING else []
        if usable or self.chunks.writing or self._is_anybody_awaited():
            self._away_since = _NEVER
            return [*self._sharing.fill(usable, now)]
        if any(donor.is_lost for donor in self._donors.values()):
            self._away_since = min(self._away_since, now)
            if now < self._lost_at:
                return []
        self._given_up.add(self.digest)
        if self._offers():
            self.phase, self._decide_at = Phase.CHOOSING, now
            return self._go_on(now)
        self.phase = Phase.OVER
        return [GiveUp(self._reason)]

    def _choose(self, now: float) -> None:
        """Go by the file that most donors name, once all have answered or had the time."""
        offers = self._offers()
        if not offers:
            self._decide_at = _NEVER  # whoever has made one is gone
            return
        if now < self._decide_at and self._is_anybody_awaited():
            return
        digest = max(offers, key=lambda digest: (offers[digest], digest == self.digest))
        if digest != self.digest:
            self.digest, self._is_apart, self._alone, self._took_s = digest, False, None, 0.0
            for donor in self._donors.values():
                donor.debts.clear()
            self.chunks.keep_only(set())
        self.phase, self._decide_at = Phase.GETTING, _NEVER

    def _offers(self) -> Counter[str]:
        """Return the files that can be had, and from how many."""
        offering = (d for d in self._donors.values() if d.standing is Standing.OFFERING)
        return Counter(d.digest for d in offering if d.digest not in self._given_up)

    @property
    def _lost_at(self) -> float:
        """Return until when donors that are all away are waited for."""
        return self._away_since + (min(MOST_AWAY_S, self._took_s) if self.chunks.given else 0.0)

    def _is_anybody_awaited(self) -> bool:
        return any(donor.is_awaited for donor in self._donors.values())

    def _usable(self) -> list[Donor]:
        """Return those that may be asked for chunks of this file."""
        if self.digest in self._given_up:
            return []
        most_bytes = MOST_TIMES * self.chunks.size_bytes
        offering = (donor for donor in self._donors.values() if donor.offers(self.digest))
        usable = [donor for donor in offering if donor.asked_bytes < most_bytes]
        if not self._is_apart or not usable:
            return usable
        if not any(donor.peer == self._alone for donor in usable):
            gave = Counter(self.chunks.given.values())
            self._stand_alone(max(usable, key=lambda donor: gave[donor.peer]).peer)
        return [donor for donor in usable if donor.peer == self._alone]

    def _stand_alone(self, peer: PeerId | None) -> None:
        """Keep what this donor has given, and have it give the rest."""
        self._alone = peer
        for donor in self._donors.values():
            self._sharing.release(donor)
        self.chunks.keep_only(set() if peer is None else {peer})

    def _ask_offer(self, donor: Donor, now: float) -> Ask:
        donor.ask_offer(now)
        return Ask(donor.peer, 0, 1)

    def _offered(self, donor: Donor, digest: str, total_bytes: int, now: float) -> list[Step]:
        if donor.standing is Standing.OFFERING:
            return []  # it was asked twice
        if not digest or total_bytes != self.chunks.size_bytes:
            return self._expel(donor, f"has a file of {total_bytes} bytes, which cannot be it", now)
        if self.phase is Phase.CHOOSING and self._decide_at == _NEVER:
            self._decide_at = now + max(LATER_S, now - donor.moved_at)
        donor.offer(digest)
        return self._go_on(now)

    def _missed(self, donor: Donor, reason: str, now: float) -> list[Step]:
        """Ask it once more which file it has, unless it was asked in vain too often."""
        self._sharing.release(donor)
        donor.miss()
        self._reason = f"{donor.peer} {reason}, and there is no other donor"
        return [] if donor.standing is Standing.OUT else [self._ask_offer(donor, now)]

    def _expel(self, donor: Donor, reason: str, now: float) -> list[Step]:
        self._sharing.release(donor)
        donor.expel()
        self._reason = f"{donor.peer} {reason}, and there is no other donor"
        return self._go_on(now)

    # ------------------------------------------------------------------ which chunks

    def _take(self, donor: Donor, offset: int, now: float) -> list[Step]:
        """Take a chunk of the file that is on its way, unless it is here already."""
        if self.phase is Phase.GETTING:  # else it may have another file by now
            donor.offer(self.digest)
        self._sharing.gave(donor, offset, now)
        is_void = self._is_apart and donor.peer != self._alone
        if is_void or self.chunks.is_here(offset):
            return self._go_on(now)
        self.chunks.writing[offset] = donor.peer
        return [Keep(offset), *self._go_on(now)]

    def validate(self) -> None:
        """Check what must hold between events."""
        self._sharing.validate()
        if self.phase in (Phase.CHOOSING, Phase.GETTING):
            assert self.wake_at < _NEVER or self.chunks.writing, "nothing ends this wait"
