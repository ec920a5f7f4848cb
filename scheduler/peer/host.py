"""The host of a seat: what its process is to it, with a link to the world, a device and a trainer.

What belongs to a stage is the seat's. Seats of one process have their turns at its device
(`lanes`).
"""

from __future__ import annotations

from swarmrt.scheduler.peer.work.queue import ComputeQueue
from swarmrt.scheduler.timing.link_rate import LinkRate


class Host:
    def __init__(self, gradient_bytes: int) -> None:
        """`gradient_bytes`: of its stage's gradient, as it travels."""
        self.link = LinkRate(gradient_bytes)
        self.queue = ComputeQueue()
        self._alone_since: float | None = None  # when the trainer was lost, until it is heard again

    @property
    def is_alone(self) -> bool:
        """Return whether the trainer is gone."""
        return self._alone_since is not None

    def alone_s(self, now: float) -> float:
        """Return for how long the trainer has been gone."""
        return 0.0 if self._alone_since is None else now - self._alone_since

    def trainer_lost(self, now: float) -> None:
        """Count from the first loss on: it may be lost by several links."""
        if self._alone_since is None:
            self._alone_since = now

    def trainer_heard(self) -> None:
        self._alone_since = None
