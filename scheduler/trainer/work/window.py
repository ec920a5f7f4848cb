"""The number of microbatches that the trainer keeps in flight.

Those that are being computed or on their way, which is what the pipeline needs to be full (the
bandwidth-delay product, as for packets), and a few more for each peer to find something to do at
any instant: more of them where they are short. What is under way is known without any clock: it is
all that is in flight, less what waits at the peers by their beacons (Little's law). So a distance
of a hundred milliseconds between peers opens the window, and a long queue closes it again.

Latencies would not do: in a pipeline that never drains, even the least of them has queues in it,
and a window that follows it grows for ever.

Where replicas make steps of their own, the gradients of what is in flight are late for these. Then
no more waits at peers than keeps them busy, and queues that are as deep as machines stutter are for
steps of which they are a small part.
"""

from __future__ import annotations

import math

from swarmrt.ids import SeatId

DEPTH = 4  # microbatches for each peer: a pipeline of equal ones is then 98 % busy
DEPTH_S = 0.1  # or so much work, where that is more: as long as machines and networks stutter
MOST_DEPTH = 32  # however short they are said to be
GAIN = 1.5  # on what is under way: how fast the window opens, a round trip at a time
DEEP_SHARE = (
    0.05  # of a step: what may be in flight where queues are deep and gradients may be late
)
SMOOTHING = 1 / 2  # of a beacon


class Window:
    def __init__(self, gain: float = GAIN, deep_up_to: float = math.inf) -> None:
        """With more than `deep_up_to` in flight, only a few wait for each peer."""
        self._gain, self._deep_up_to = gain, deep_up_to
        self._waiting: dict[SeatId, float] = {}  # by the last beacons
        self._wanted: dict[SeatId, int] = {}  # to wait at each, with the one that it computes
        self._unheard: set[SeatId] = set()  # in this round
        self._landed = 0  # in this round
        self.size = DEPTH

    def add(self, peer: SeatId) -> None:
        """Count a peer that takes work from now on."""
        self._waiting.setdefault(peer, 0.0)
        self._wanted.setdefault(peer, DEPTH)
        self.size = max(self.size, self._least)

    def remove(self, peer: SeatId) -> None:
        self._waiting.pop(peer, None)
        self._wanted.pop(peer, None)
        self._unheard.discard(peer)

    def heard(self, peer: SeatId, queued: int, service_s: float) -> None:
        """Take a peer's word, by its beacon: what it could compute at once, with what it computes
        now, and how long a forward and backward take there, or 0."""
        if peer in self._waiting:
            self._wanted[peer] = _wanted(service_s)
            waiting = min(max(0, queued - 1), self.size)  # there cannot be more
            self._waiting[peer] += SMOOTHING * (waiting - self._waiting[peer])
            self._unheard.discard(peer)

    def landed(self, in_flight: int, *, more: bool) -> None:
        """A microbatch is finished, of so many; there are `more` to send, or there are not.

        The size changes once in a round: when as many have landed as were in flight, and all peers
        were heard. Only if it was in the way: a pipeline that drains needs less than it could have.
        """
        self._landed += 1
        if not more or in_flight < self.size:
            return
        if self._landed < self.size or self._unheard:
            return
        under_way = max(0.0, in_flight - sum(self._waiting.values()))
        needed = math.ceil(self._gain * under_way)
        self.size = max(self._least, needed + self._slack(needed))
        self._landed, self._unheard = 0, set(self._waiting)

    def _slack(self, needed: int) -> int:
        """Return how many are to wait, with so many in flight beside them."""
        few = (DEPTH - 1) * len(self._wanted)
        many = sum(self._wanted.values()) - len(self._wanted)
        return many if needed + many <= self._deep_up_to else few

    @property
    def _least(self) -> int:
        """The least that is in flight: each peer computes one, and the others wait."""
        return DEPTH * max(1, len(self._waiting))


def window_of_own_steps(microbatches: int) -> Window:
    """Return the window of replicas that make steps of their own, with so many microbatches in a
    step."""
    return Window(gain=1.0, deep_up_to=DEEP_SHARE * microbatches)


def _wanted(service_s: float) -> int:
    """Return how many are to be at a peer that takes so long for each. A peer may say anything."""
    if not service_s > 0:  # it has computed none yet
        return DEPTH
    if service_s <= DEPTH_S / MOST_DEPTH:
        return MOST_DEPTH
    return max(DEPTH, math.ceil(DEPTH_S / service_s))
