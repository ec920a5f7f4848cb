"""The computations of one stage: forward, backward, an update, and its state.

The order of calls: any number of `forward` and `backward`, then `contribute`, and one `step` with
the mean of all replicas' `contribution`, which they share; or `clear_gradients` to begin the step
again.

Which weights a microbatch runs on, and how a version is made, is for `weights` to say: replicas
commit together (`committed`), also with a momentum each (`decoupled`), or go apart and are averaged
(`averaged`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError, ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.kernels.digest import digest
from swarmrt.model.averaged import Averaged
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.builders import BUILT_IN
from swarmrt.model.committed import Committed
from swarmrt.model.decoupled import Decoupled
from swarmrt.model.engine import add_gradients, gradient_of
from swarmrt.model.flat import Flat
from swarmrt.model.optimizer import rounding
from swarmrt.model.pieces import most_rows
from swarmrt.model.updating import LastMade
from swarmrt.model.weight_gradients import Factors, WeightGradients
from swarmrt.model.weights import Copy, Graph, LocalReport, Weights

WITHOUT_STATISTICS = (
    ". Use layers without running statistics (LayerNorm or GroupNorm, not BatchNorm)"
)


class Left(NamedTuple):
    """The work that backward leaves for `add_weight_gradients`."""

    microbatch: MicrobatchId
    step: int  # whose gradients they belong to
    copy: Copy  # that it ran on
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
        first = sum(layers[:stage_index])
        self._kind = config.model.kind
        self._recompute = config.model.recompute
        self._mixed = config.precision.compute == "bfloat16"
        self._rows = most_rows(config)
        exact = torch.promote_types(self.dtype, torch.float32)
        self.rounding = rounding(config, exact)  # of updates, beside a slice's largest value
        self._weight_gradients = WeightGradients()
        self._range = (first, first + layers[stage_index])
        self._config = config
        self._weights = self._new_weights()
        self._fixed = self._fixed_versions()

    def _new_weights(self) -> Weights:
        return _kind_of(self._config)(self._config, partial(self._build, self._config))

    def _build(self, config: RunConfig) -> Copy:
        """Build another copy, with the weights of version 0."""
        self._model = build_layers(config)  # each time: a builder may have made the modules itself
        layers = Slice(self._model, *self._range).to(self.device)
        trained = layers.trainable()
        if not trained:
            raise ModelError(
                f"stage {self.stage_index} has nothing to train; cut the layers otherwise"
            )
        self._weight_gradients.split(layers)
        flat = Flat(config, trained, layers.hidden_matrices(), self.device)
        return Copy(layers, flat, trained)

    @property
    def version(self) -> int:
        """The number of updates applied."""
        return self._weights.version

    @property
    def num_parameters(self) -> int:
        """The number of parameters that are trained."""
        return self._weights.newest.flat.num_parameters

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
        step = self._step_of(microbatch)
        copy = self._weights.copy_for(step) if training else self._weights.newest
        if copy.layers.training != training:
            copy.layers.train(training)
        inputs = inputs.detach().to(self.device)
        if training and not self.is_first:
            inputs.requires_grad_()
        keeps_graph = training and not self._recompute
        end = self._compute(copy.layers, microbatch, inputs, targets, keeps_graph)
        self._refuse_changed_buffers()
        graph = None
        if training:
            kept = end if keeps_graph else None
            graph = Graph(microbatch, inputs, targets, kept, step, copy)
            self._weights.began(graph)
        return Forwarded(
            output=None if self.is_last else end.detach(),
            loss_sum=end.item() if self.is_last else None,
            tokens=targets.numel() if self.is_last and targets is not None else 0,
            graph=graph,
        )

    def _step_of(self, microbatch: MicrobatchId) -> int:
        """The step that it adds to: without overlap there is one, for whatever is asked."""
        return microbatch.step if self._weights.overlap else self.version

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
        if graph is None or not 0 <= graph.step - self.version <= self._weights.overlap:
            raise ValueError("this forward has no graph any more, or is of another version")
        end = graph.end
        if end is None:  # activation recomputation: Chen et al. 2016, "sublinear memory cost"
            batch = (graph.microbatch, graph.inputs, graph.targets)
            end = self._compute(graph.copy.layers, *batch, keeps_graph=True)
        grad = None if output_grad is None else output_grad.to(self.device)
        if not accumulate and end.requires_grad:
            self._weights.ended(graph)
            return self._input_grad_only(graph.inputs, end, grad)
        gradients = self._weights.receive(graph.copy, graph.step)
        if end.requires_grad:
            self._weight_gradients.when = "later" if later else "now"
            try:
                add_gradients(end, grad)
            except BaseException:
                self._weight_gradients.take()  # or the next microbatch's would be with them
                raise
            if later:
                factors = self._weight_gradients.take()
                forwarded.left = Left(graph.microbatch, graph.step, graph.copy, factors)
        gradients.collect()
        self._weights.ended(graph)
        if accumulate and forwarded.left is None:
            self._weights.added(graph.microbatch, graph.step)
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
        gradients = self._weights.receive(left.copy, left.step)
        for factors in left.factors:
            factors.add()
        gradients.collect()
        self._weights.added(left.microbatch, left.step)

    def size_own_steps(self, microbatches: int) -> None:
        """Make a step of the replica's own once so many microbatches wait for it, with averaging; 0
        is never. At first it is `local_batch`."""
        self._weights.size_own_steps(microbatches)

    def gradients(self, step: int | None = None) -> Tensor:
        """The flat sums [num_parameters] of a step, a live view, in at least float32.

        The step is by default the one that comes next to be applied. With averaging they are what
        no step of the replica's own has taken.
        """
        return self._weights.gradients(self.version if step is None else step)

    def contribute(self, step: int) -> None:
        """Fix what this replica gives for the version after a step, the one that comes next to be
        applied: all of its microbatches are added. After a void round it may be called
        again, when more have been."""
        self._weights.contribute(step)

    def contribution(self, step: int) -> Tensor:
        """Return what replicas add up for the version after a step, flat [contribution_numel], in
        at least float32: the gradients, or with averaging what the replica has changed times its
        microbatches. The sum is to be divided by all tokens, or by all microbatches. With decoupled
        momentum they are peaks of its chunks, as they travel, a row each."""
        return self._weights.contribution(step)

    def contribution_numel(self, step: int) -> int:
        """Return the length of the contribution of a step: a function of the step alone."""
        return self._weights.contribution_numel(step)

    def local_report(self) -> LocalReport:
        """Return what this replica did by itself for the version that was made last."""
        return self._weights.local_report()

    def named_gradients(self) -> dict[str, Tensor]:
        """Return `gradients()` by the parameters' names in the whole model."""
        return dict(self._weights.newest.flat.named(self.gradients()))

    def clear_gradients(self) -> None:
        """Clear the gradients of all steps that are under way. With averaging the weights are those
        of the newest version again."""
        self._weights.clear()

    def step(self, reduced: Tensor, clip_scale: float, given: Tensor | None = None) -> str:
        """Make the next version; the digest of its parameters.

        `reduced` is the mean of all replicas' contributions, flat: the gradient of the mean loss
        over the step, or with averaging the mean move, or with decoupled momentum the signs. It is
        not changed. `given` is what this replica has contributed, if it has.
        """
        self._weights.step(reduced, clip_scale, given)
        return self.digest()

    @property
    def state_rows(self) -> int:
        """The number of values that an update changes for a parameter at the most, itself
        included."""
        return self._rows

    def row_lengths(self, where: slice) -> list[int]:
        """Return how many values of a slice of the parameters an update changes: their own, and
        those of each moment."""
        return self._weights.updated.lengths(where)

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
            return self._weights.updated.updated(where, reduced, clip_scale, version, last)

    def adopt(self, pieces: Iterable[tuple[slice, Tensor]]) -> str:
        """Make the next version of what `updated` has given, here or elsewhere, for all slices; the
        digest of the new parameters. The step's accumulated gradients are cleared."""
        self._weights.adopt(pieces)
        return self.digest()

    def skip(self) -> str:
        """Make the next version without the step's gradients, or what came of them, which are
        lost."""
        self._weights.skip()
        return self.digest()

    def digest(self) -> str:
        """Return the digest of the trained parameters; with bfloat16, of their float32 masters."""
        return digest(self._weights.masters)

    def digested(self) -> tuple[str, ...]:
        """Names in `live_state` of what `digest` is of, in its order."""
        flat = self._weights.newest.flat
        kind = "optimizer.master" if flat.mixed else "model"
        return tuple(f"{kind}.{name}" for name, _ in flat.named(self._weights.masters))

    def state(self) -> dict[str, Tensor]:
        """Copies on the CPU, in a fixed order: `model.<name>`, and what else a version has."""
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
            self._weights.restored(version)
        self._fixed = self._fixed_versions()

    def move(self, device: str) -> None:
        """Have the state on another device from now on. What no version has is lost. Where it has
        no room it stays where it was, and this raises what the device does."""
        state, version, before = self.state(), self.version, self.device
        del self._weights
        gc.collect()  # layers hold on to themselves: their memory would not be free before
        try:
            self._settle(torch.device(device), state, version)
        except Exception:
            self._settle(before, state, version)
            raise

    def _settle(self, device: torch.device, state: dict[str, Tensor], version: int) -> None:
        self.device = device
        self._weights = self._new_weights()
        self.load_state(state, version)

    def named_parameters_state(self) -> dict[str, Tensor]:
        """Copies of the model's parameters and buffers under their exported names."""
        return {
            name: _copy(tensor) for name, tensor in self._weights.newest.layers.tensors().items()
        }

    def live_state(self) -> dict[str, Tensor]:
        """Return what `state` copies, as it is: it changes with the next update."""
        return self._live_state(self.version)

    def _live_state(self, version: int) -> dict[str, Tensor]:
        """Return `live_state` as it is at that version: which copy is which depends on it."""
        tensors = self._weights.newest.layers.tensors()
        state = {f"model.{name}": tensor for name, tensor in tensors.items()}
        return state | self._weights.state(version)

    def _loss_sum(self, output: Tensor, targets: Tensor | None) -> Tensor:
        if targets is None:
            raise ValueError("the last stage needs targets")
        return self._model.loss_sum(output, targets.to(self.device))

    def _fixed_versions(self) -> dict[str, tuple[int, int]]:
        """Identity and torch's write count of each persistent tensor that is not trained."""
        trained = self._weights.newest.layers.trainable()
        return {
            f"{name}{f' of copy {number}' * (number > 0)}": (tensor.data_ptr(), tensor._version)
            for number, layers in enumerate(self._weights.all_layers())
            for name, tensor in layers.tensors().items()
            if name not in trained
        }

    def _refuse_changed_buffers(self) -> None:
        """A running statistic is a function of who computed what: replicas would disagree."""
        if self._fixed and (now := self._fixed_versions()) != self._fixed:
            name = next(name for name in now if now[name] != self._fixed.get(name))
            raise ModelError(
                f"{self._kind}: forward changes the buffer {name}; replicas would disagree"
                f"{WITHOUT_STATISTICS}"
            )


def _kind_of(config: RunConfig) -> type[Averaged | Committed]:
    if config.averaging.is_on:
        return Averaged
    return Decoupled if config.averaging.is_decoupled else Committed


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
