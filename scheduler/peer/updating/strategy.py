"""The updating of a seat: what any way of making the next version answers at the peer.

The questions are the same however replicas come to agree. Those that work has while it computes are
asked of the `Versions`: which weights may a microbatch run on, what becomes of its gradient, and
what is lost when the work of a term is void. What is said about versions, and what has been
computed for them, comes to the `Updating`, which says what follows, and what a joiner needs.

`sync`: a step's gradients make a version, and all replicas apply it together. `averaging`: what
replicas have moved in steps of their own makes it, by rounds that leave what is being computed
alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from swarmrt.ids import MicrobatchId, PeerId, SeatId
from swarmrt.messages import Admit, Apply, Part, Prepare, Update
from swarmrt.scheduler.events import (
    Contributed,
    GradientCombined,
    PartSummed,
    PartUnfit,
    PartUpdated,
    StateLoaded,
    Stepped,
    UpdateJoined,
)
from swarmrt.scheduler.instructions import Instruction, LoadState
from swarmrt.scheduler.peer.updating.accumulators import Accumulators
from swarmrt.scheduler.peer.work.tasks import Tasks

Word = Prepare | Part | Update | Apply
"""What is said to a seat by which a version is made."""

Outcome = (
    Contributed | PartUnfit | PartSummed | GradientCombined | PartUpdated | UpdateJoined | Stepped
)
"""What has come of what it computes for a version."""


class Versions(ABC):
    """The versions of a seat's weights, and what is on its way into the next one. The parts of
    work and membership ask it; it knows none of them."""

    def __init__(self) -> None:
        self.accumulators = Accumulators()  # of gradients that no version has

    # ------------------------------------------------------------------ which weights

    @property
    @abstractmethod
    def newest(self) -> int:
        """Return the newest version that can be run on."""

    @abstractmethod
    def runs_on(self, microbatch: MicrobatchId) -> int:
        """Return the version that a microbatch runs on. It waits until that one is here."""

    @abstractmethod
    def is_too_early(self, microbatch: MicrobatchId) -> bool:
        """Return whether a microbatch is so far ahead that it may not even wait here."""

    @abstractmethod
    def is_over(self, microbatch: MicrobatchId) -> bool:
        """Return whether nothing that comes of a microbatch counts any more."""

    def is_open(self, microbatch: MicrobatchId) -> bool:
        """Return whether a microbatch may run on what is here, and would count."""
        return not self.is_over(microbatch) and self.runs_on(microbatch) <= self.newest

    # ------------------------------------------------------------------ what becomes of a gradient

    @abstractmethod
    def is_due_before(self, microbatch: MicrobatchId, other: MicrobatchId) -> bool:
        """Return whether the gradient of a microbatch is wanted before that of another one."""

    @abstractmethod
    def owned_anew(self, microbatch: MicrobatchId) -> list[Instruction]:
        """Take note that the gradient of a microbatch is to be added here, by the trainer's
        word."""

    @abstractmethod
    def added(self, microbatch: MicrobatchId) -> list[Instruction]:
        """Take note that the gradient of a microbatch has been added to the accumulators."""

    def own_step(self, microbatch: MicrobatchId, between: int) -> int:
        """Return of how many microbatches the replica is to make an optimizer step by itself, as it
        adds the gradient of this one; 0 for none. So many are between forward and backward."""
        return 0

    # ------------------------------------------------------------------ what is lost

    @abstractmethod
    def void(self) -> list[Instruction]:
        """Lose what no version has, as the work of the term is void. What others may have agreed
        on is kept."""

    @abstractmethod
    def clear(self) -> list[Instruction]:
        """Lose all that leads to other versions than the one that is loaded, or loaded next."""

    # ------------------------------------------------------------------ what is said of it

    @property
    @abstractmethod
    def prepared(self) -> int:
        """Return the round of which all is here that is to be applied next; or -1."""

    @property
    @abstractmethod
    def waits_for(self) -> SeatId:
        """Return whom the next version waits for here, or nobody."""

    @property
    @abstractmethod
    def awaited(self) -> int | None:
        """Return the newest round of which parts are on their way here, if there is one."""

    @abstractmethod
    def validate(self, tasks: Tasks) -> None:
        """Check what always holds of it, of tasks, and of what is accumulated."""


class Updating(ABC):
    """A way of making versions. It is told what happens, and says what to do."""

    # ------------------------------------------------------------------ what happens

    @abstractmethod
    def heard(self, sender: PeerId, word: Word, now: float) -> list[Instruction]:
        """Take a word by which a version is made: the trainer's, or another member's part."""

    @abstractmethod
    def happened(self, outcome: Outcome, now: float) -> list[Instruction]:
        """Take what has come of a computation, or a part that does not fit."""

    @abstractmethod
    def not_sent(self, to: SeatId, part: Part) -> list[Instruction]:
        """Deal with a part that could not be sent."""

    @abstractmethod
    def go_on(self) -> list[Instruction]:
        """Do what can be done for the version that is here now."""

    @abstractmethod
    def settle(self) -> list[Instruction]:
        """Do what the last event, whatever it was, has made possible."""

    # ------------------------------------------------------------------ what a joiner needs

    @abstractmethod
    def admitted(self, message: Admit) -> LoadState | None:
        """Return what a seat that is let in has to load, and follow it from here on; None if it has
        all that it needs."""

    @abstractmethod
    def loaded(self, event: StateLoaded) -> bool:
        """Take a state that was loaded; return whether it is the one that it was let in for."""
