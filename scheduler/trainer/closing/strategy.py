"""The closing of versions: what any way of making the next version answers at the trainer.

The questions are the same however replicas come to agree: when is what a version is made of
finished, when is it announced, and what is counted as lost. What is saved is one answer for all
(`saves`). `sync` is the one way: whether replicas give their gradients of a step, or what steps of
their own have moved in it, whatever was granted in it is counted once, and in the same two phases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from swarmrt.ids import SeatId
from swarmrt.messages import Applied, Prepared, Refused, Updated
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.trainer.membership.members import Member

Answer = Prepared | Updated | Refused | Applied
"""What members answer to those words by which a version is made."""


class Closing(ABC):
    """A way of making versions. It is told what happens, and says what to do."""

    # ------------------------------------------------------------------ when

    @property
    @abstractmethod
    def is_due(self) -> bool:
        """Return whether all is finished that the next version is made of."""

    @abstractmethod
    def begin(self, now: float) -> list[Instruction]:
        """Ask for what the next version is made of, as it is due. What was announced before is
        applied by all by then."""

    @abstractmethod
    def heard(self, member: Member, answer: Answer, now: float) -> list[Instruction]:
        """Take a member's answer. The one that was last to come makes the version be announced, or
        ends it."""

    @abstractmethod
    def is_late(self, what: str, now: float) -> list[Instruction]:
        """Deal with answers of this kind that are overdue: ask again, or go on without."""

    # ------------------------------------------------------------------ what is lost

    @abstractmethod
    def void(self, peer: SeatId) -> int:
        """Do without what a lost member has done that no version has yet; return of how many
        (microbatch, stage) that is. They are done again, or counted as lost."""

    @abstractmethod
    def go_on_without(self, peer: SeatId, why: str, now: float) -> list[Instruction]:
        """Go on, whatever of a version is under way, without a member that is lost."""

    # ------------------------------------------------------------------ what it waits for

    @abstractmethod
    def suspects(self) -> list[SeatId]:
        """Return whom a version that is under way waits for, and could do without."""

    @abstractmethod
    def awaited(self) -> str | None:
        """Return what a version that is under way is waiting for, for people; None for nothing."""
