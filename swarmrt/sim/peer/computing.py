"""The computations of a simulated peer, and the frames that it keeps for them.

The "gradient" of a microbatch is the microbatch itself, an accumulator is a count of its halves,
which backward adds together or one after the other. Frames are strings that name the microbatch,
the stage and the epoch, so that a wrong one or one of void work is seen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

from swarmrt.ids import MicrobatchId
from swarmrt.messages import FailedIn
from swarmrt.scheduler.events import (
    BackwardDone,
    ComputeFailed,
    Contributed,
    ForwardDone,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import Contribute, RunBackward, RunWeightGradients
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.settings import PeerSettings
from swarmrt.sim.engine.process import Process
from swarmrt.sim.peer.jobs import Jobs
from swarmrt.sim.peer.local_steps import LocalSteps
from swarmrt.sim.peer.state import State

TOKENS = 10  # of every microbatch


class Computing:
    def __init__(
        self,
        settings: PeerSettings,
        process: Process,
        jobs: Jobs,
        state: State,
        frame_bytes: int,
    ) -> None:
        self.fails: Callable[[str, MicrobatchId], bool] = lambda what, microbatch: False
        self.fails_by_value = False  # what fails is not finite; else it raises an error
        self.accumulated: dict[int, Counter[str]] = defaultdict(Counter)  # by step
        self.local = LocalSteps(settings.local_from)
        self._settings, self._process = settings, process
        self._jobs, self._state, self._frame_bytes = jobs, state, frame_bytes
        self._inputs: dict[MicrobatchId, str] = {}
        self._graphs: set[MicrobatchId] = set()
        self._left: set[MicrobatchId] = set()  # half of their gradient
        self._outputs: set[MicrobatchId] = set()
        self._gradients: dict[MicrobatchId, str] = {}
        self._input_grads: set[MicrobatchId] = set()

    # ------------------------------------------------------------------ frames

    def keep_input(self, mb: MicrobatchId, frame: str) -> None:
        assert frame == self._frame(mb, self._settings.stage - 1), mb
        self._inputs[mb] = frame

    def keep_gradient(self, mb: MicrobatchId, frame: str) -> None:
        assert frame == self._frame(mb, self._settings.stage + 1), mb
        self._gradients[mb] = frame

    def output(self, mb: MicrobatchId) -> str:
        assert mb in self._outputs, f"{mb} has no output"
        return self._frame(mb, self._settings.stage)

    def input_grad(self, mb: MicrobatchId) -> str:
        assert mb in self._input_grads, f"{mb} has no input gradient"
        return self._frame(mb, self._settings.stage)

    def forget(self, mb: MicrobatchId) -> None:
        self._inputs.pop(mb, None)
        self._graphs.discard(mb)
        self._left.discard(mb)
        self._gradients.pop(mb, None)
        self.local.forget(mb)
        self.drop_frames(mb)

    def drop_frames(self, mb: MicrobatchId) -> None:
        self._outputs.discard(mb)
        self._input_grads.discard(mb)

    def kept(self) -> int:
        """Return how many frames are here."""
        frames = (self._inputs, self._graphs, self._left, self._outputs, self._gradients)
        return sum(map(len, frames)) + len(self._input_grads)

    def _frame(self, mb: MicrobatchId, stage: int) -> str:
        """Return what a stage sends, forward or backward. The trainer counts as stage -1."""
        assert isinstance(self._process.core, PeerCore)
        return f"{mb} of stage {stage} in epoch {self._process.core.seat.epoch}"

    # ------------------------------------------------------------------ computing

    def forward(self, mb: MicrobatchId) -> None:
        assert mb in self._inputs, f"{mb} has no input"
        self._jobs.later(1.0, lambda: self._forward(mb), is_forward=True)

    def backward(self, what: RunBackward) -> None:
        mb = what.microbatch
        self._graphs.remove(mb)
        if self._settings.stage < self._settings.num_stages - 1:
            self._gradients.pop(mb)
        self._inputs.pop(mb, None)
        self._jobs.later(1.0 if what.later else 2.0, lambda: self._backward(what))

    def weight_gradients(self, what: RunWeightGradients) -> None:
        self._left.remove(what.microbatch)
        self._jobs.later(1.0, lambda: self._add_what_was_left(what))

    def clear_gradients(self) -> None:
        self._jobs.later(0.0, self.clear)

    def clear(self) -> None:
        """Clear what is accumulated: what was moved by it is taken back."""
        self.accumulated.clear()
        self.local.went_back()

    def contribute(self, what: Contribute) -> None:
        self._jobs.later(0.1, lambda: self._contribute(what))

    def contribution(self, step: int) -> Counter[str]:
        """Return what a round of the step takes."""
        if self.local.is_local(step):
            return self.local.contribution(step)
        return Counter(self.accumulated[step])

    def _contribute(self, what: Contribute) -> None:
        self.local.contribute(what.step, self.accumulated[what.step])
        self.local.check(self._state.history, self.accumulated)
        self._process.feed(Contributed(what.step, what.round))

    def _forward(self, mb: MicrobatchId) -> None:
        self._check_weights(mb)
        if self._has_failed("forward", mb):
            return
        is_last = self._settings.stage == self._settings.num_stages - 1
        if not mb.held_out:
            self._graphs.add(mb)
            self.local.forwarded(mb)
        if not is_last:
            self._outputs.add(mb)
        loss_sum, tokens = (float(TOKENS), TOKENS) if is_last else (0.0, 0)
        service_s = self._jobs.service_s
        self._process.feed(ForwardDone(mb, service_s, loss_sum, tokens, self._frame_bytes))

    def _backward(self, what: RunBackward) -> None:
        mb, later = what.microbatch, what.later
        self._check_weights(mb)
        self.local.came_back(mb)
        if self._has_failed("backward", mb, adds=what.accumulate):
            return
        if what.accumulate:
            self._add(mb, 1 if later else 2, what.own_step)
        if later:
            self._left.add(mb)
        self._input_grads.add(mb)
        seconds = self._jobs.service_s if later else 2 * self._jobs.service_s
        self._process.feed(BackwardDone(mb, seconds, self._frame_bytes))

    def _add_what_was_left(self, what: RunWeightGradients) -> None:
        mb = what.microbatch
        if self._has_failed("weights", mb):
            return
        self._add(mb, 1, what.own_step)
        self._process.feed(WeightGradientsDone(mb, self._jobs.service_s))

    def _has_failed(self, what: FailedIn, mb: MicrobatchId, *, adds: bool = False) -> bool:
        """Return whether it raises an error. A part of a gradient may have been added before."""
        if not self.fails(what, mb):
            return False
        if adds:
            self._add(mb, 1)
        self._process.feed(ComputeFailed(mb, what, "simulated", self.fails_by_value))
        return True

    def _add(self, mb: MicrobatchId, halves: int, own_step: int = 0) -> None:
        accumulated = self.accumulated[mb.step]
        accumulated[f"{mb} {self._settings.me}"] += halves
        self.local.added(mb.step, accumulated, own_step)
        self.local.check(self._state.history, self.accumulated)

    def _check_weights(self, mb: MicrobatchId) -> None:
        """Check that the version that it runs on is here: the newest, or with staleness the one
        before."""
        is_fresh = mb.step < self._settings.fresh_steps
        staleness = 0 if is_fresh else self._settings.staleness
        behind = self._state.version - mb.runs_on(staleness)
        assert 0 <= behind <= staleness, f"{mb} at version {self._state.version}"
