"""The acts of a peer on microbatches: frames are kept, and computed on."""

from __future__ import annotations

from swarmrt.runtime.computing.computations import Computations, Computed
from swarmrt.runtime.peer.jobs import Jobs
from swarmrt.runtime.process.process import Process
from swarmrt.scheduler.instructions import (
    ClearGradients,
    DropFrames,
    Forget,
    KeepGradient,
    KeepInput,
    RunBackward,
    RunForward,
    RunWeightGradients,
)


class Computing:
    def __init__(self, process: Process, jobs: Jobs, computations: Computations) -> None:
        self._process, self._jobs, self._computations = process, jobs, computations

    def keep_input(self, keep: KeepInput) -> None:
        inputs, targets = self._process.arrived
        self._computations.keep_input(keep.microbatch, inputs, targets)

    def keep_gradient(self, keep: KeepGradient) -> None:
        self._computations.keep_output_grad(keep.microbatch, self._process.arrived[0])

    def forward(self, run: RunForward) -> None:
        self._jobs.forward(self._computations.forward(run.microbatch), self._computed)

    def backward(self, run: RunBackward) -> None:
        self._jobs.compute(self._computations.backward(run), self._computed)

    def weight_gradients(self, run: RunWeightGradients) -> None:
        self._jobs.compute(self._computations.weight_gradients(run), self._computed)

    def forget(self, forget: Forget) -> None:
        self._computations.forget(forget.microbatch)

    def drop_frames(self, drop: DropFrames) -> None:
        self._computations.drop_frames(drop.microbatch)

    def clear_gradients(self, _: ClearGradients) -> None:
        self._jobs.compute(self._computations.stage.clear_gradients)

    def _computed(self, outcome: Computed) -> None:
        """Take what a forward or backward has given. A copy to the host may still be to come."""
        if callable(outcome):
            self._jobs.wait_for_host(outcome, self._process.feed)
        else:
            self._process.feed(outcome)
