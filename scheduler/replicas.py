"""The replicas of the next stage, as one sender knows them: by the directory, by the trainer's
word, and by what happened on the way to them."""

from __future__ import annotations

import random

from swarmrt.ids import PeerId
from swarmrt.scheduler.wiring import Wiring


class Absent:
    """Peers that were lost a short while ago: the directory still names them until their record
    has expired."""

    def __init__(self, record_ttl_s: float) -> None:
        self._record_ttl_s = record_ttl_s
        self._until: dict[PeerId, float] = {}

    def add(self, peer: PeerId, now: float) -> None:
        self._until[peer] = now + self._record_ttl_s

    def discard(self, peer: PeerId) -> None:
        """It is back."""
        self._until.pop(peer, None)

    def without(self, peers: tuple[PeerId, ...], now: float) -> tuple[PeerId, ...]:
        """Those that are not known to be gone."""
        self._until = {peer: until for peer, until in self._until.items() if until > now}
        return tuple(peer for peer in peers if peer not in self._until)


class Replicas:
    def __init__(self, rng: random.Random, record_ttl_s: float) -> None:
        self.wiring = Wiring(rng, is_only_sender=False)
        self._absent = Absent(record_ttl_s)
        self._vouched: dict[PeerId, None] = {}  # by the trainer, which knows before the directory

    def seen(self, peers: tuple[PeerId, ...], now: float) -> None:
        """The directory names these."""
        self.wiring.set_peers({*self._absent.without(peers, now), *self._vouched})

    def vouch(self, peer: PeerId) -> None:
        """The trainer says that it takes work."""
        self._absent.discard(peer)
        self._vouched[peer] = None
        self.wiring.add(peer)

    def lost(self, peer: PeerId, now: float) -> None:
        self._vouched.pop(peer, None)
        self._absent.add(peer, now)
        self.wiring.remove(peer)

    def refused(self, peer: PeerId, service_s: float, until: float) -> None:
        """It did not take work: nothing more for it until then."""
        self.wiring.observe(peer, service_s)
        self.wiring.block(peer, until)
