"""The gradient accumulators of a seat: which microbatches are in them, or on their way into them.

Rules:
- A microbatch is accumulated at most once, by the record. It is in it when all of its gradient is
  in the accumulators.
- Where backward leaves the weights' gradients for later, a part of the gradient is in them until
  that is done.
- What is void while it runs is cleared from them when it is over.
"""

from __future__ import annotations

from collections.abc import Callable

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.instructions import ClearGradients


class Accumulators:
    def __init__(self) -> None:
        self.record: set[MicrobatchId] = set()  # accumulated, and in no version yet
        self.is_spoiled = False  # a part of a gradient may be in them that is never completed
        self._adding: set[MicrobatchId] = set()  # that a started computation adds
        self._left: set[MicrobatchId] = set()  # whose weights' gradients are not all added yet

    def is_adding(self, microbatch: MicrobatchId) -> bool:
        """Return whether a computation that is under way adds it."""
        return microbatch in self._adding

    def has(self, microbatch: MicrobatchId) -> bool:
        """Return whether it is in them, if only in part."""
        return microbatch in self.record or microbatch in self._left

    def indices(self, step: int) -> set[int]:
        """Return the indices of the microbatches that are in them, if only in part, and are
        committed in this step."""
        return {mb.index for mb in self.record | self._left if mb.commits_in == step}

    # ------------------------------------------------------------------ adding

    def begin(self, microbatch: MicrobatchId) -> None:
        """Take note that a computation is started that adds it."""
        self._adding.add(microbatch)

    def leave_weights(self, microbatch: MicrobatchId) -> None:
        """Take note that the backward which adds it leaves the weights' gradients for later."""
        self._left.add(microbatch)

    def is_half_added(self, microbatch: MicrobatchId) -> bool:
        """Return whether what is under way adds it, and not all of it."""
        return microbatch in self._adding and microbatch in self._left

    def half_added(self, microbatch: MicrobatchId) -> None:
        """Take note that all is in them but the weights' gradients, which were left."""
        self._adding.discard(microbatch)

    def weights_added(self, microbatch: MicrobatchId) -> None:
        """Take note that the weights' gradients, which were left, are in them as well."""
        self._left.discard(microbatch)

    def ended(self, microbatch: MicrobatchId) -> bool:
        """Take note that a computation is over; return whether it has added to them."""
        has_added = microbatch in self._adding
        self._adding.discard(microbatch)
        return has_added

    def failed(self, microbatch: MicrobatchId) -> None:
        """Take note that a computation has failed. It may have added a part of a gradient."""
        if microbatch in self._adding or microbatch in self._left:
            self.is_spoiled = True
        self._adding.discard(microbatch)

    # ------------------------------------------------------------------ leaving them

    def void(self) -> list[ClearGradients]:
        """Clear them. What is being added is cleared when that is over."""
        is_empty = not (self.record or self._adding or self._left or self.is_spoiled)
        self.is_spoiled = False
        self.record.clear()
        self._left.clear()
        return [] if is_empty else [ClearGradients()]

    def forget(self, is_over: Callable[[MicrobatchId], bool]) -> None:
        """Forget what a version has taken."""
        self.record = {mb for mb in self.record if not is_over(mb)}
        self._left = {mb for mb in self._left if not is_over(mb)}
