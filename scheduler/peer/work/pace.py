"""The pace of a seat's computations: how long they take, and what follows from that.

Where computations are short, the next ones are handed over before the running one ends, so that the
device does not wait for the event loop, and their outcomes can come back together. Where they are
long the choice is left open: a gradient that comes meanwhile goes first.
"""

from __future__ import annotations

from swarmrt.scheduler.peer.work.queue import MOST_AHEAD, ComputeQueue
from swarmrt.scheduler.timing.estimate import Estimate

BACKWARD_COST = 2.0  # forwards: two products of matrices for one
WAIT_FRACTION = 0.02  # of a forward, for a grant
SHORT_S = 0.03  # a hundred times what a turn of the event loop takes
AHEAD_S = 0.02  # of computing is handed over ahead, where that is several computations


class Pace:
    def __init__(self, queue: ComputeQueue) -> None:
        self._queue = queue
        self._forward_time = Estimate()
        self._backward_time = Estimate()  # with the weights' gradients

    def forward_took(self, seconds: float) -> None:
        self._forward_time.add(seconds)

    def backward_took(self, seconds: float) -> None:
        self._backward_time.add(seconds)

    @property
    def is_long(self) -> bool:
        """Return whether a computation takes long beside a turn of the event loop."""
        return self._longest_s >= SHORT_S

    @property
    def ahead(self) -> int:
        """Return how many computations are handed over before the running one ends."""
        longest_s = self._longest_s
        if not self._forward_time.samples or longest_s >= SHORT_S:
            return 0
        if longest_s <= AHEAD_S / MOST_AHEAD:
            return MOST_AHEAD
        return max(1, int(AHEAD_S / longest_s))

    @property
    def _longest_s(self) -> float:
        return max(self._forward_time.mean_s, self._backward_time.mean_s)

    def is_brief(self, seconds: float) -> bool:
        """Return whether a device may stand still for it."""
        return 0 < seconds <= WAIT_FRACTION * self._forward_time.mean_s

    @property
    def service_s(self) -> float:
        """Return the seconds of one forward and backward; 0 when they are not known."""
        return self._forward_time.mean_s + self._backward_s

    @property
    def backlog_s(self) -> float:
        """Return the seconds that what waits takes."""
        waiting = self._queue.waiting
        backwards = waiting("backward") + waiting("weights") / 2  # about half of one
        forwards_s = waiting("forward") * self._forward_time.mean_s
        return forwards_s + backwards * self._backward_s

    @property
    def _backward_s(self) -> float:
        """Return the seconds of a backward: before there was one, what it takes as a rule."""
        if not self._backward_time.samples:
            return BACKWARD_COST * self._forward_time.mean_s
        return self._backward_time.mean_s
