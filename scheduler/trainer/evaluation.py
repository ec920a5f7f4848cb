"""The evaluation of one version: held-out microbatches, forward only.

Within an epoch a loss depends on the version and the microbatch alone, so it counts whichever
attempt it is of.
"""

from __future__ import annotations

import math

from swarmrt.ids import MicrobatchId, PeerId, SeatId
from swarmrt.messages import Evaluated
from swarmrt.scheduler.instructions import ReportEvaluation


class Evaluation:
    def __init__(self, version: int, microbatches: int) -> None:
        """`microbatches` is 0 when this version is not evaluated."""
        self.version = version
        self._awaited = set(range(microbatches))
        self._losses: dict[int, tuple[float, int]] = {}  # index → loss sum, tokens
        self.is_reported = not microbatches
        self._doubted: dict[int, set[SeatId]] = {}  # index → who says that its loss is not finite

    @property
    def is_complete(self) -> bool:
        return not self._awaited

    def awaits(self, microbatch: MicrobatchId) -> bool:
        """Return whether its loss is not known yet."""
        return microbatch.index in self._awaited

    def pending(self) -> list[MicrobatchId]:
        return [MicrobatchId(self.version, i, held_out=True) for i in sorted(self._awaited)]

    def add(self, sender: PeerId, message: Evaluated, others: int) -> bool:
        """Add a loss; return whether it counts. One that is not finite does when two say so, if
        there are others who could."""
        index = message.work.microbatch.index
        if index not in self._awaited:
            return False
        if not math.isfinite(message.loss_sum):
            doubted = self._doubted.setdefault(index, set())
            doubted.add(sender)
            if len(doubted) < 2 and others:
                return False
        self._awaited.remove(index)
        self._losses[index] = (message.loss_sum, message.tokens)
        return True

    def drop(self) -> None:
        """End it: it is not wanted any more."""
        self._awaited.clear()
        self.is_reported = True

    def report(self) -> list[ReportEvaluation]:
        """Return its result, once."""
        if self.is_reported:
            return []
        self.is_reported = True
        losses = [self._losses[index] for index in sorted(self._losses)]
        loss_sum, tokens = sum(loss for loss, _ in losses), sum(n for _, n in losses)
        return [ReportEvaluation(self.version, loss_sum / max(1, tokens))]
