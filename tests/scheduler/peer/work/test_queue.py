"""The order in which a seat computes what is queued."""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.peer.work.queue import ComputeQueue
from swarmrt.scheduler.peer.work.task import Task


def test_a_step_goes_before_the_next_one_that_runs_on_the_same_weights() -> None:
    """So it is where the first step with a staleness follows a fresh one. Whatever of the earlier
    step comes last would wait for all of the other."""
    queue = ComputeQueue()
    later, earlier = MicrobatchId(1, 0), MicrobatchId(0, 319)
    evaluated = MicrobatchId(0, 3, held_out=True)
    for microbatch in (later, earlier, evaluated):
        queue.add("forward", Task(microbatch, runs_on=0))
    order = []
    while (task := queue.oldest("forward", 0)) is not None:
        queue.begin("forward", task)
        order.append(task.microbatch)
    assert order == [evaluated, earlier, later]
