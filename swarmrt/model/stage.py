"""The computations of one stage: forward, backward, an update, and its state.

The order of calls: any number of `forward` and `backward`, then one `step` with the gradient of
the whole stage, which all replicas share; or `clear_gradients` to begin the step again.

With a staleness of 1 a microbatch of step t runs on what is expected of version t when t - 1 is the
newest. A stage keeps two more copies of its layers for that, and the gradient of a step is added up
in the one that it ran on, so steps t and t + 1 may be under way at the same time. What is expected
after an update goes to the copy that is not needed any more (PipeDream-2BW, Narayanan et al. 2021,
section 3.1; decision 0010).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError, ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.kernels.digest import digest
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.builders import BUILT_IN
from swarmrt.model.engine import add_gradients, gradient_of
from swarmrt.model.flat import Accumulators, Flat
from swarmrt.model.optimizer import rounding
from swarmrt.model.pieces import most_rows
from swarmrt.model.updating import LastMade, Updated
from swarmrt.model.weight_gradients import Factors, WeightGradients

WITHOUT_STATISTICS = (
    ". Use layers without running statistics (LayerNorm or GroupNorm, not BatchNorm)"
)


class Graph(NamedTuple):
    """The graph that backward needs: autograd's hangs on `end`."""

    microbatch: MicrobatchId
    inputs: Tensor
    targets: Tensor | None
    end: Tensor | None  # the output, or the loss sum; None when it is to be computed again
    step: int  # whose copy it ran on


class Copy(NamedTuple):
    """The stage's layers, and their weights in one piece."""

    layers: Slice
    flat: Flat


class Running(NamedTuple):
    """A copy that the microbatches of a step run on, and the sums of their gradients."""

    layers: Slice
    flat: Flat
    gradients: Accumulators


class Left(NamedTuple):
    """The work that backward leaves for `add_weight_gradients`."""

    step: int  # whose accumulator they belong to
    factors: list[Factors]


@dataclass
class Forwarded:
    """The results that one forward leaves."""

    output: Tensor | None  # detached activations [B, T, C]; None at the last stage
    loss_sum: float | None  # at the last stage, summed over the targets
    tokens: int  # targets at the last stage, else 0
    graph: Graph | None  # until backward; None when evaluating
    left: Left | None = None  # after a backward with `later`


class Stage:
    """The parameters and optimizer of one stage. Not thread-safe: one call at a time.

    `config.stages.layers` must be set (see `partition.resolve`). Raises ModelError when the
    model cannot be built.
    """

    def __init__(self, config: RunConfig, stage_index: int, device: str = "cpu") -> None:
        layers = config.stages.layers
        if layers is None:
            raise ValueError("a Stage needs the cut: call partition.resolve(config) first")
        self.stage_index, self.num_stages = stage_index, len(layers)
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, config.model.dtype)
        self.version = 0  # updates applied
        first = sum(layers[:stage_index])
        self._kind = config.model.kind
        self._recompute = config.model.recompute
        self._mixed = config.precision.compute == "bfloat16"
        self._optimizer = config.optimizer
        self._staleness = config.optimizer.staleness
        self._rows = most_rows(config)
        exact = torch.promote_types(self.dtype, torch.float32)
        self.rounding = rounding(config, exact)  # of updates, beside a slice's largest value
        self._weight_gradients = WeightGradients()
        self._range = (first, first + layers[stage_index])
        self._newest = self._build(config)  # the weights that are updated, and told to others
        self._updated = Updated(config, self._newest.flat)
        copies = [self._build(config) for _ in range(2)] if self._staleness else [self._newest]
        self._running = [self._to_run_on(copy) for copy in copies]
        self._fixed = self._fixed_versions()

    def _build(self, config: RunConfig) -> Copy:
        """Build another copy, with the weights of version 0."""
        self._model = build_layers(config)  # each time: a builder may have made the modules itself
        layers = Slice(self._model, *self._range).to(self.device)
        trained = layers.trainable()
        if not trained:
            raise ModelError(
                f"stage {self.stage_index} has nothing to train; cut the layers otherwise"
            )
        return Copy(layers, Flat(config, trained, layers.hidden_matrices(), self.device))

    def _to_run_on(self, copy: Copy) -> Running:
        layers, flat = copy
        self._weight_gradients.split(layers)
        return Running(layers, flat, Accumulators(flat, layers.trainable()))

    def _running_in(self, step: int) -> Running:
        """The copy that a step runs on, which updates the newest version or, with staleness, the
        one after."""
        return self._running[step % len(self._running)]

    @property
    def num_parameters(self) -> int:
        """The number of parameters that are trained."""
        return self._newest.flat.num_parameters

    @property
    def is_first(self) -> bool:
        return self.stage_index == 0

    @property
    def is_last(self) -> bool:
        return self.stage_index == self.num_stages - 1

    def forward(
        self, microbatch: MicrobatchId, inputs: Tensor, targets: Tensor | None
    ) -> Forwarded:
        """Token ids int64 [B, T] at stage 0, else activations in `dtype`; targets at the last.

        Without side effects. A held-out microbatch runs in eval mode and leaves no graph.
        """
        training = not microbatch.held_out
        layers = self._layers_for(microbatch)
        if layers.training != training:
            layers.train(training)
        inputs = inputs.detach().to(self.device)
        if training and not self.is_first:
            inputs.requires_grad_()
        keeps_graph = training and not self._recompute
        end = self._compute(layers, microbatch, inputs, targets, keeps_graph)
        self._refuse_changed_buffers()
        tokens = targets.numel() if self.is_last and targets is not None else 0
        return Forwarded(
            output=None if self.is_last else end.detach(),
            loss_sum=end.item() if self.is_last else None,
            tokens=tokens,
            graph=Graph(
                microbatch, inputs, targets, end if keeps_graph else None, self._step_of(microbatch)
            )
            if training
            else None,
        )

    def _step_of(self, microbatch: MicrobatchId) -> int:
        """The step whose copy it runs on: without staleness there is one, for whatever is asked."""
        return microbatch.step if self._staleness else self.version

    def _layers_for(self, microbatch: MicrobatchId) -> Slice:
        """The layers with the newest weights, or with those that its step runs on."""
        if microbatch.held_out:
            return self._newest.layers
        return self._running_in(self._step_of(microbatch)).layers

    def _compute(
        self,
        layers: Slice,
        microbatch: MicrobatchId,
        inputs: Tensor,
        targets: Tensor | None,
        keeps_graph: bool,
    ) -> Tensor:
        """The output, or the loss sum. Every draw is a function of the microbatch and the layer,
        so that it comes out the same when it is computed again."""
        mixed = torch.autocast(self.device.type, torch.bfloat16) if self._mixed else nullcontext()
        with torch.set_grad_enabled(keeps_graph), mixed:
            # A layer of the user's may work in place, and these are computed from again.
            own = inputs if self._kind == BUILT_IN else inputs.clone()
            output = layers(own, microbatch)
            end = self._loss_sum(output, targets) if self.is_last else output
        return end.to(self.dtype) if self._mixed else end

    def backward(
        self,
        forwarded: Forwarded,
        output_grad: Tensor | None,
        *,
        accumulate: bool = True,
        later: bool = False,
    ) -> Tensor | None:
        """Add d(loss sum)/d(parameters) into `gradients(step)`; the input's gradient, if any.

        `output_grad` is None at the last stage. After an error a part of the gradient may be in the
        accumulators: clear them. Once for each Forwarded, while its version's
        weights are here: raises ValueError otherwise. The input's gradient is None at stage 0.
        Without `accumulate` only the input's gradient is computed. With `later` the weights of
        linear layers are left to `add_weight_gradients`.
        """
        graph, forwarded.graph = forwarded.graph, None
        if graph is None or not 0 <= graph.step - self.version <= self._staleness:
            raise ValueError("this forward has no graph any more, or is of another version")
        end = graph.end
        if end is None:  # activation recomputation: Chen et al. 2016, "sublinear memory cost"
            layers = self._running_in(graph.step).layers
            batch = (graph.microbatch, graph.inputs, graph.targets)
            end = self._compute(layers, *batch, keeps_graph=True)
        if end.requires_grad:
            grad = None if output_grad is None else output_grad.to(self.device)
            if not accumulate:
                return self._input_grad_only(graph.inputs, end, grad)
            self._weight_gradients.when = "later" if later else "now"
            try:
                add_gradients(end, grad)
            except BaseException:
                self._weight_gradients.take()  # or the next microbatch's would be with them
                raise
            if later:
                forwarded.left = Left(graph.step, self._weight_gradients.take())
        self._running_in(graph.step).gradients.collect()
        return None if self.is_first else _or_zeros(graph.inputs.grad, graph.inputs)

    def _input_grad_only(
        self, inputs: Tensor, end: Tensor, output_grad: Tensor | None
    ) -> Tensor | None:
        if self.is_first:
            return None
        self._weight_gradients.when = "never"
        return _or_zeros(gradient_of(inputs, end, output_grad), inputs)

    def add_weight_gradients(self, forwarded: Forwarded) -> None:
        """Add what a backward with `later` has left. Without one there is nothing to do."""
        left, forwarded.left = forwarded.left, None
        if left is None:
            return
        for factors in left.factors:
            factors.add()
        self._running_in(left.step).gradients.collect()

    def gradients(self, step: int | None = None) -> Tensor:
        """The flat sums [num_parameters] of a step, a live view, in at least float32.

        The step is by default the one that comes next to be applied.
        """
        step = self.version if step is None else step
        return self._running_in(step).gradients.sums

    def named_gradients(self) -> dict[str, Tensor]:
        """Return `gradients()` by the parameters' names in the whole model."""
        return dict(self._newest.flat.named(self.gradients()))

    def clear_gradients(self) -> None:
        """Clear the gradients of all steps that are under way."""
        for copy in self._running:
            copy.gradients.clear()

    def step(self, reduced: Tensor, clip_scale: float) -> str:
        """Apply one update; the digest of the new parameters.

        `reduced` is the gradient of the mean loss over the step, flat as `gradients()`. It is
        not changed. The step's accumulated gradients are cleared.
        """
        self._updated.step(reduced, clip_scale, self.version, scratch=self.gradients())
        return self._made()

    @property
    def state_rows(self) -> int:
        """The number of values that an update changes for a parameter at the most, itself
        included."""
        return self._rows

    def row_lengths(self, where: slice) -> list[int]:
        """Return how many values of a slice of the parameters an update changes: their own, and
        those of each moment."""
        return self._updated.lengths(where)

    def updated(
        self,
        version: int,
        where: slice,
        reduced: Tensor,
        clip_scale: float,
        last: LastMade | None = None,
    ) -> Tensor:
        """Return what `step` would make of a slice of the parameters and moments of this version,
        on the host. `reduced` is the flat gradient. Nothing is changed, so it may run beside
        forwards and backwards. `last` saves time when slices of one gradient are made one after the
        other."""
        last = LastMade() if last is None else last
        with torch.no_grad():
            return self._updated.updated(where, reduced, clip_scale, version, last)

    def adopt(self, pieces: Iterable[tuple[slice, Tensor]]) -> str:
        """Make the next version of what `updated` has given, here or elsewhere, for all slices; the
        digest of the new parameters. The step's accumulated gradients are cleared."""
        with torch.no_grad():
            self._updated.adopt(pieces)
        return self._made()

    def skip(self) -> str:
        """Make the next version without an update. The step's accumulated gradients are cleared."""
        return self._made()

    def _made(self) -> str:
        """Count what has been made as the next version."""
        self.version += 1
        self._expect()
        return self.digest()

    def _expect(self) -> None:
        """Make the copies ready for the steps that run on this version."""
        own, newest = self._running_in(self.version), self._newest.flat
        if not self._staleness:
            own.gradients.clear()
            return
        following = self._running_in(self.version + 1)
        with torch.no_grad():
            if self._optimizer.staleness_of(self.version) == 0:
                own.flat.values.copy_(newest.values)
            if self._optimizer.staleness_of(self.version + 1) == 1:
                self._updated.expect(self.version, following.flat.values)
        following.gradients.clear()

    def digest(self) -> str:
        """Return the digest of the trained parameters; with bfloat16, of their float32 masters."""
        return digest(self._updated.masters)

    def digested(self) -> tuple[str, ...]:
        """Names in `live_state` of what `digest` is of, in its order."""
        flat = self._newest.flat
        kind = "optimizer.master" if flat.mixed else "model"
        return tuple(f"{kind}.{name}" for name, _ in flat.named(self._updated.masters))

    def state(self) -> dict[str, Tensor]:
        """Copies on the CPU: `model.<name>` and `optimizer.<slot>.<name>`, and with
        staleness `previous.<name>`, which the step that comes next to be applied runs on, in a
        fixed order."""
        return {name: _copy(tensor) for name, tensor in self.live_state().items()}

    def load_state(self, tensors: dict[str, Tensor], version: int) -> None:
        """Take over a replica's state, and clear the accumulated gradients.

        Raises CheckpointError, before anything is changed, unless names, shapes and dtypes are
        exactly those of `state()`.
        """
        live = self._live_state(version)
        _check_fits(live, tensors, f"the state of stage {self.stage_index}")
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.copy_(tensors[name])
            self._updated.restored()
        self.version = version
        self.clear_gradients()
        self._expect()
        self._fixed = self._fixed_versions()

    def named_parameters_state(self) -> dict[str, Tensor]:
        """Copies of the model's parameters and buffers under their exported names."""
        return {name: _copy(tensor) for name, tensor in self._newest.layers.tensors().items()}

    def live_state(self) -> dict[str, Tensor]:
        """Return what `state` copies, as it is: it changes with the next update."""
        return self._live_state(self.version)

    def _live_state(self, version: int) -> dict[str, Tensor]:
        """Return `live_state` as it is at that version: which copy is which depends on it."""
        layers, flat = self._newest
        state = {f"model.{name}": tensor for name, tensor in layers.tensors().items()}
        state |= self._updated.state()
        if self._staleness:
            before = self._running_in(version).flat
            state |= {f"previous.{name}": values for name, values in before.named(before.values)}
        return state

    def _loss_sum(self, output: Tensor, targets: Tensor | None) -> Tensor:
        if targets is None:
            raise ValueError("the last stage needs targets")
        return self._model.loss_sum(output, targets.to(self.device))

    def _fixed_versions(self) -> dict[str, tuple[int, int]]:
        """Identity and torch's write count of each persistent tensor that is not trained."""
        trained = self._newest.layers.trainable()
        return {
            f"{name}{f' of copy {number}' * (number > 0)}": (tensor.data_ptr(), tensor._version)
            for number, layers in enumerate(self._all_layers())
            for name, tensor in layers.tensors().items()
            if name not in trained
        }

    def _all_layers(self) -> list[Slice]:
        """The layers with the newest weights, and those that steps run on if they are others."""
        others = [copy.layers for copy in self._running if copy.layers is not self._newest.layers]
        return [self._newest.layers, *others]

    def _refuse_changed_buffers(self) -> None:
        """A running statistic is a function of who computed what: replicas would disagree."""
        if self._fixed and (now := self._fixed_versions()) != self._fixed:
            name = next(name for name in now if now[name] != self._fixed.get(name))
            raise ModelError(
                f"{self._kind}: forward changes the buffer {name}; replicas would disagree"
                f"{WITHOUT_STATISTICS}"
            )


def _or_zeros(gradient: Tensor | None, inputs: Tensor) -> Tensor:
    """Return the gradient of inputs; none at all has reached them where a layer detaches them."""
    return torch.zeros_like(inputs) if gradient is None else gradient


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _check_fits(expected: dict[str, Tensor], given: dict[str, Tensor], what: str) -> None:
    missing = [name for name in expected if name not in given]
    extra = [name for name in given if name not in expected]
    for problem, names in (("lacks", missing), ("has an unknown", extra)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{what} {problem} tensor {names[0]}{more}")
    for name, tensor in expected.items():
        if given[name].shape != tensor.shape or given[name].dtype != tensor.dtype:
            raise CheckpointError(
                f"{what}: {name} is {_describe(given[name])}, expected {_describe(tensor)}"
            )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
