"""The ledgers of all steps that are open.

With a staleness of 0 that is the step of the current version alone. With 1 the next step is open as
well: it runs on the same weights as the step whose gradients are being reduced.
"""

from __future__ import annotations

from collections import Counter

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.scheduler.trainer.work.ledger import Ledger
from swarmrt.scheduler.trainer.work.step_sizes import StepSizes


class Books:
    def __init__(self, sizes: StepSizes, num_stages: int) -> None:
        self._sizes, self._num_stages = sizes, num_stages
        self._ledgers: dict[int, Ledger] = {}  # by step, oldest first
        self._skipped: set[int] = set()  # open steps whose gradient is never finite

    def __getitem__(self, step: int) -> Ledger:
        return self._ledgers[step]

    @property
    def steps(self) -> list[int]:
        return list(self._ledgers)

    def open(self, step: int) -> list[MicrobatchId]:
        """A new step, after the others; what it consists of."""
        size = self._sizes.of(step)
        self._ledgers[step] = Ledger(step, size, self._num_stages)
        return [MicrobatchId(step, index) for index in range(size)]

    def is_skipped(self, step: int) -> bool:
        """Return whether nothing of an open step counts."""
        return step in self._skipped

    def skip(self, step: int) -> list[MicrobatchId]:
        """Forget all that is done of an open step, in its place; what it consists of."""
        self._skipped.add(step)
        return self.open(step)

    def close(self, step: int) -> None:
        del self._ledgers[step]
        self._skipped.discard(step)

    def clear(self) -> None:
        self._ledgers.clear()
        self._skipped.clear()

    def of(self, microbatch: MicrobatchId) -> Ledger | None:
        """The ledger that it belongs to; None when its step is not open, or has no such one."""
        ledger = None if microbatch.held_out else self._ledgers.get(microbatch.commits_in)
        is_known = ledger is not None and 0 <= microbatch.index < ledger.microbatches
        return ledger if is_known else None

    def fence(self, peer: SeatId) -> int:
        """Void all that this peer has in them; return how many (microbatch, stage) that was."""
        return sum(ledger.fence(peer) for ledger in self._ledgers.values())

    def num_owned(self, peer: SeatId) -> int:
        """Return how many (microbatch, stage) of the open steps this peer owns."""
        return sum(len(ledger.owned_by(peer)) for ledger in self._ledgers.values())

    def load(self, stage: int) -> Counter[SeatId]:
        """Return how much each owner of a stage has yet to accumulate."""
        loads = [ledger.load(stage) for ledger in self._ledgers.values()]
        return sum(loads, Counter())

    @property
    def advanced(self) -> int:
        """Return how much of all of them was ever done."""
        return sum(ledger.advanced for ledger in self._ledgers.values())

    @property
    def has_vacancies(self) -> bool:
        for ledger in self._ledgers.values():  # asked after every event: `any` would take longer
            if ledger.has_vacancies:
                return True
        return False

    def vacancies(self) -> list[tuple[Ledger, int, int]]:
        """Return what nobody owns, oldest first: (ledger, microbatch index, stage)."""
        return [
            (ledger, index, stage)
            for ledger in self._ledgers.values()
            for index, stage in ledger.vacancies()
        ]

    def validate(self) -> None:
        for step, ledger in self._ledgers.items():
            assert step == ledger.step
            ledger.validate()
