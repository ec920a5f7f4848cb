"""Which frames a peer keeps so that a neighbour's loss costs one stage's recompute.

A frame is kept as it was sent until its step is committed. When the budget is full, those of the
microbatches that have come furthest go first: they are the least likely to be asked for.
"""

from __future__ import annotations

from swarmrt.scheduler.instructions import DropFrames, Instruction
from swarmrt.scheduler.tasks import Phase, Task, Tasks


class Retention:
    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self.held_bytes = 0  # by the last count

    def keep_within(self, tasks: Tasks) -> list[Instruction]:
        """Frames that are dropped now. A frame whose receipt is still awaited is never dropped."""
        held = [task for task in tasks if task.has_output or task.has_input_grad]
        self.held_bytes = sum(map(_bytes, held))
        dropped: list[Instruction] = []
        for task in sorted(filter(_is_spare, held), key=_is_done, reverse=True):
            if self.held_bytes <= self._budget_bytes:
                break
            self.held_bytes -= _bytes(task)
            task.has_output = task.has_input_grad = False
            dropped.append(DropFrames(task.microbatch))
        return dropped

    def clear(self) -> None:
        self.held_bytes = 0


def _bytes(task: Task) -> int:
    output = task.output_bytes if task.has_output else 0
    return output + (task.input_grad_bytes if task.has_input_grad else 0)


def _is_done(task: Task) -> bool:
    return task.backward is Phase.DONE


def _is_spare(task: Task) -> bool:
    """Its output has been taken, and its gradient is not still to be computed from it."""
    return task.accepted or not task.onward or task.backward is Phase.DONE
