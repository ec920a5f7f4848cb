"""What a peer computes: forward, backward and update of a contiguous slice of layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError, ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.kernels.digest import digest
from swarmrt.model.build import DTYPES, LayerSpec, build_layer, loss_sum, model_spec
from swarmrt.model.draws import drawing_layer, never_draws
from swarmrt.model.flat import FlatParameters
from swarmrt.model.optimizer import learning_rate, new_optimizer, set_learning_rate


@dataclass
class Forwarded:
    """What one forward leaves."""

    output: Tensor | None  # activations without graph; None at the last stage
    loss_sum: float | None  # at the last stage, over the targets
    tokens: int  # targets at the last stage, else 0
    inputs: Tensor | None = None  # kept for backward, to read its gradient
    root: Tensor | None = None  # where backward starts; None when evaluating


class Stage:
    """Layers of one stage with their optimizer. Use it from one thread at a time.

    Parameters are equal in every replica: their initial values depend on the seed and the layer.
    """

    def __init__(self, config: RunConfig, stage_index: int, device: str = "cpu") -> None:
        """`config` has its stages resolved. Raises ModelError."""
        if config.stages.layers is None:
            raise ModelError("the configuration does not say yet which layers a stage has")
        self.config, self.stage_index, self.num_stages = config, stage_index, config.num_stages
        self.device = torch.device(device)
        self.dtype = DTYPES[config.model.dtype]
        self.version = 0
        spec = model_spec(config)
        first = sum(config.stages.layers[:stage_index])
        self._specs = spec.of_units(first, first + config.stages.layers[stage_index])
        self._loss = spec.loss
        self._modules = [build_layer(config, layer, self.device) for layer in self._specs]
        self._draws = [not never_draws(module) for module in self._modules]
        named = _named(self._specs, self._modules)
        if not named:
            raise ModelError(f"stage {stage_index} has no parameters; cut the layers otherwise")
        self._flat = FlatParameters(named)
        self._optimizer = new_optimizer(config.optimizer, self._flat.masters.values())

    @property
    def is_first(self) -> bool:
        return self.stage_index == 0

    @property
    def is_last(self) -> bool:
        return self.stage_index == self.num_stages - 1

    @property
    def num_parameters(self) -> int:
        return self._flat.numel

    def forward(
        self, microbatch: MicrobatchId, inputs: Tensor, targets: Tensor | None
    ) -> Forwarded:
        """Token ids int64 [B, T] at the first stage, else activations of the stage before.

        `targets` int64 [B, T] at the last stage. A held-out microbatch leaves no graph.
        """
        inputs = inputs.detach().to(self.device)
        training = not microbatch.held_out
        if training and inputs.is_floating_point():
            inputs.requires_grad_()
        with torch.set_grad_enabled(training):
            value = self._run_layers(microbatch, inputs, training)
            if not self.is_last:
                root = value if training else None
                return Forwarded(value.detach(), None, 0, inputs, root)
            assert targets is not None
            total = loss_sum(self._loss, value, targets.to(self.device))
            root = total if training else None
            return Forwarded(None, float(total.detach()), targets.numel(), inputs, root)

    def backward(self, forwarded: Forwarded, output_grad: Tensor | None) -> Tensor | None:
        """Add d(summed loss)/d(parameters) into the accumulator, once for this Forwarded.

        `output_grad` has the output's shape; the last stage starts at the loss and takes None.
        Returns the gradient of the inputs, None at the first stage.
        """
        root = forwarded.root
        assert root is not None, "evaluated, or run backward before"
        forwarded.root = None
        if output_grad is not None:
            output_grad = output_grad.to(self.device)
        torch.autograd.backward([root], [output_grad] if output_grad is not None else None)
        self._flat.collect()
        assert forwarded.inputs is not None
        return forwarded.inputs.grad

    def gradients(self) -> Tensor:
        """The accumulator itself, flat, [num_parameters], in the dtype that sums are kept in."""
        return self._flat.gradients

    def clear_gradients(self) -> None:
        self._flat.gradients.zero_()

    def step(self, reduced: Tensor, clip_scale: float) -> str:
        """Update from the flat mean gradient, scaled; clear the accumulator.

        The version goes up by one. Returns the digest of the new parameters.
        """
        torch.mul(reduced.to(self.device), clip_scale, out=self._flat.gradients)
        set_learning_rate(self._optimizer, learning_rate(self.config, self.version))
        self._optimizer.step()
        self._flat.publish()
        self.clear_gradients()
        self.version += 1
        return self.digest()

    def digest(self) -> str:
        """Of the parameters, exact."""
        return digest(self._flat.values)

    def named_parameters_state(self) -> dict[str, Tensor]:
        """Parameters and buffers by their names in the whole model: copies on the CPU."""
        state = {
            spec.name + name: tensor.detach().cpu().clone()
            for spec, module in zip(self._specs, self._modules, strict=True)
            for name, tensor in module.state_dict().items()
        }
        return dict(sorted(state.items()))

    def state(self) -> dict[str, Tensor]:
        """Everything that the next update depends on: copies, equal on all replicas.

        `model.NAME` for parameters and buffers, `optimizer.SLOT.NAME` for moments, and
        `master.NAME` where the optimizer works on finer copies of the parameters.
        """
        state = {f"model.{n}": t for n, t in self.named_parameters_state().items()}
        for name, master in self._flat.masters.items():
            if self._flat.master_values is not self._flat.values:
                state[f"master.{name}"] = master.detach().cpu().clone()
            for slot, value in sorted(self._optimizer.state[master].items()):
                if isinstance(value, Tensor):
                    state[f"optimizer.{slot}.{name}"] = value.detach().cpu().clone()
        return state

    def load_state(self, tensors: dict[str, Tensor], version: int) -> None:
        """Take over the state of another replica or of a checkpoint.

        Raises CheckpointError when it is of another model; nothing is changed then.
        """
        mine = self.named_parameters_state()
        self._check_names(tensors, mine)
        for spec, module in zip(self._specs, self._modules, strict=True):
            for name, tensor in module.state_dict().items():
                tensor.copy_(tensors[f"model.{spec.name}{name}"])
        if self._flat.master_values is not self._flat.values:
            for name, master in self._flat.masters.items():
                master.data.copy_(tensors[f"master.{name}"])
        self._load_moments(tensors)
        self.clear_gradients()
        self.version = version

    def _load_moments(self, tensors: dict[str, Tensor]) -> None:
        masters = self._flat.masters
        self._optimizer.state.clear()
        for full_name, tensor in tensors.items():
            if full_name.startswith("optimizer."):
                _, slot, name = full_name.split(".", 2)
                on_device = tensor.clone().to(self.device if slot != "step" else "cpu")
                self._optimizer.state[masters[name]][slot] = on_device

    def _check_names(self, tensors: dict[str, Tensor], mine: dict[str, Tensor]) -> None:
        theirs = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        if theirs.keys() != mine.keys():
            odd = sorted(theirs.keys() ^ mine.keys())
            raise CheckpointError(f"the state is of another model: {odd[0]} is in only one of them")
        for name, tensor in mine.items():
            if theirs[name].shape != tensor.shape or theirs[name].dtype != tensor.dtype:
                raise CheckpointError(
                    f"the state is of another model: {name} is {tuple(theirs[name].shape)} "
                    f"{theirs[name].dtype}, here {tuple(tensor.shape)} {tensor.dtype}"
                )

    def _run_layers(self, microbatch: MicrobatchId, value: Tensor, training: bool) -> Tensor:
        for spec, module, draws in zip(self._specs, self._modules, self._draws, strict=True):
            module.train(training)
            if training and draws:
                seed = self.config.run.seed
                with drawing_layer(self.device, seed, microbatch, spec.index):
                    value = module(value)
            else:
                value = module(value)
        return value


def _named(specs: tuple[LayerSpec, ...], modules: list[nn.Module]) -> dict[str, nn.Parameter]:
    """Trainable parameters by their names in the whole model, in a fixed order."""
    return {
        spec.name + name: parameter
        for spec, module in zip(specs, modules, strict=True)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
