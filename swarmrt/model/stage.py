"""What one stage computes: forward, backward, an update, and its state.

The order of calls: any number of `forward` and `backward`, then one `step` with the gradient of
the whole stage, which all replicas share; or `clear_gradients` to begin the step again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError, ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.kernels.digest import digest
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.flat import Flat


class Graph(NamedTuple):
    """What backward needs: autograd's graph hangs on `end`."""

    microbatch: MicrobatchId
    inputs: Tensor
    targets: Tensor | None
    end: Tensor | None  # the output, or the loss sum; None when it is to be computed again
    version: int


@dataclass
class Forwarded:
    """What one forward leaves."""

    output: Tensor | None  # detached activations [B, T, C]; None at the last stage
    loss_sum: float | None  # at the last stage, summed over the targets
    tokens: int  # targets at the last stage, else 0
    graph: Graph | None  # until backward; None when evaluating


class Stage:
    """One stage's parameters and optimizer. Not thread-safe: one call at a time.

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
        self._model = build_layers(config)
        self._slice = Slice(self._model, first, first + layers[stage_index]).to(self.device)
        trained = self._slice.trainable()
        if not trained:
            raise ModelError(f"stage {stage_index} has nothing to train; cut the layers otherwise")
        self._flat = Flat(config, trained, self.device)
        self._fixed = self._fixed_versions()

    @property
    def num_parameters(self) -> int:
        """How many are trained."""
        return self._flat.num_parameters

    @property
    def state_bytes(self) -> int:
        """Of `live_state`."""
        return sum(tensor.nbytes for tensor in self.live_state().values())

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
        if self._slice.training != training:
            self._slice.train(training)
        inputs = inputs.detach().to(self.device)
        if training and not self.is_first:
            inputs.requires_grad_()
        keeps_graph = training and not self._recompute
        end = self._compute(microbatch, inputs, targets, keeps_graph)
        self._refuse_changed_buffers()
        tokens = targets.numel() if self.is_last and targets is not None else 0
        return Forwarded(
            output=None if self.is_last else end.detach(),
            loss_sum=end.item() if self.is_last else None,
            tokens=tokens,
            graph=Graph(microbatch, inputs, targets, end if keeps_graph else None, self.version)
            if training
            else None,
        )

    def _compute(
        self, microbatch: MicrobatchId, inputs: Tensor, targets: Tensor | None, keeps_graph: bool
    ) -> Tensor:
        """The output, or the loss sum. Every draw is a function of the microbatch and the layer,
        so that it comes out the same when it is computed again."""
        mixed = torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed)
        with torch.set_grad_enabled(keeps_graph), mixed:
            output = self._slice(inputs, microbatch)
            end = self._loss_sum(output, targets) if self.is_last else output
        return end.to(self.dtype) if self._mixed else end

    def backward(
        self, forwarded: Forwarded, output_grad: Tensor | None, *, accumulate: bool = True
    ) -> Tensor | None:
        """Add d(loss sum)/d(parameters) into `gradients()`; the input's gradient, if any.

        `output_grad` is None at the last stage. Once for each Forwarded, at its version: raises
        ValueError otherwise. The input's gradient is None at stage 0. Without `accumulate` only
        the input's gradient is computed.
        """
        graph, forwarded.graph = forwarded.graph, None
        if graph is None or graph.version != self.version:
            raise ValueError("this forward has no graph any more, or is of another version")
        end = graph.end
        if end is None:  # activation recomputation: Chen et al. 2016, "sublinear memory cost"
            end = self._compute(graph.microbatch, graph.inputs, graph.targets, keeps_graph=True)
        if end.requires_grad:
            grad = None if output_grad is None else output_grad.to(self.device)
            if not accumulate:
                return self._input_grad_only(graph.inputs, end, grad)
            torch.autograd.backward(end, grad)
        self._flat.collect()
        return None if self.is_first else graph.inputs.grad

    def _input_grad_only(
        self, inputs: Tensor, end: Tensor, output_grad: Tensor | None
    ) -> Tensor | None:
        if self.is_first:
            return None
        return torch.autograd.grad(end, inputs, output_grad)[0]

    def gradients(self) -> Tensor:
        """The flat sums [num_parameters], a live view, in at least float32."""
        return self._flat.gradients

    def clear_gradients(self) -> None:
        self._flat.clear_gradients()

    def step(self, reduced: Tensor, clip_scale: float) -> str:
        """Apply one update; the digest of the new parameters.

        `reduced` is the gradient of the mean loss over the step, flat as `gradients()`. It is
        not changed. The accumulated gradients are cleared.
        """
        self._flat.step(reduced, clip_scale, self.version)
        self.version += 1
        return self.digest()

    def digest(self) -> str:
        """Of the trained parameters; with bfloat16, of their float32 masters."""
        return digest(self._flat.masters)

    def state(self) -> dict[str, Tensor]:
        """Copies on the CPU: `model.<name>` and `optimizer.<slot>.<name>`, in a fixed order."""
        return {name: _copy(tensor) for name, tensor in self.live_state().items()}

    def load_state(self, tensors: dict[str, Tensor], version: int) -> None:
        """Take over a replica's state, and clear the accumulated gradients.

        Raises CheckpointError, before anything is changed, unless names, shapes and dtypes are
        exactly those of `state()`.
        """
        live = self.live_state()
        _check_fits(live, tensors, f"the state of stage {self.stage_index}")
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.copy_(tensors[name])
        self._flat.restored()
        self._fixed = self._fixed_versions()
        self.version = version

    def named_parameters_state(self) -> dict[str, Tensor]:
        """Copies of the model's parameters and buffers under their exported names."""
        return {name: _copy(tensor) for name, tensor in self._slice.tensors().items()}

    def live_state(self) -> dict[str, Tensor]:
        """What `state` copies, as it is: it changes with the next update."""
        state = {f"model.{name}": tensor for name, tensor in self._slice.tensors().items()}
        return state | self._flat.optimizer_state()

    def _loss_sum(self, output: Tensor, targets: Tensor | None) -> Tensor:
        if targets is None:
            raise ValueError("the last stage needs targets")
        return self._model.loss_sum(output, targets.to(self.device))

    def _fixed_versions(self) -> dict[str, tuple[int, int]]:
        """Identity and torch's write count of each persistent tensor that is not trained."""
        trained = self._slice.trainable()
        return {
            name: (tensor.data_ptr(), tensor._version)
            for name, tensor in self._slice.tensors().items()
            if name not in trained
        }

    def _refuse_changed_buffers(self) -> None:
        """A running statistic is a function of who computed what: replicas would disagree."""
        if self._fixed and (now := self._fixed_versions()) != self._fixed:
            name = next(name for name in now if now[name] != self._fixed.get(name))
            raise ModelError(
                f"{self._kind}: forward changes the buffer {name}; replicas would disagree. "
                "Use layers without running statistics (LayerNorm or GroupNorm, not BatchNorm)"
            )


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
