"""The check that a message's tensors are exactly what it says: others may send anything.

Rules:
- Token ids are of the batch's shape and in the vocabulary: others would kill a CUDA context.
- Targets are sealed but at the last stage, which alone can open them.
- Activations are what the stage before makes, gradients are like this stage's output. Where that
  cannot be told from the configuration it is learned, from the first frame that could be computed.
- Whatever else has a tensor is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from swarmrt.config import RunConfig
from swarmrt.errors import AccessError
from swarmrt.ids import MicrobatchId
from swarmrt.messages import Backward, Forward, Message, Recover
from swarmrt.model.frames import FrameShape, activations_into, gradient_of
from swarmrt.trust.sealing import TAG_BYTES, unseal

TOKENS = torch.int64


class Fitting:
    def __init__(self, config: RunConfig, stage_index: int) -> None:
        self._config = config
        self._is_first = stage_index == 0
        is_last = stage_index == config.num_stages - 1
        self._batch = torch.Size([config.batch.microbatch, config.model.sequence])
        self._vocab = config.model.vocab
        self._input = None if self._is_first else activations_into(config, stage_index)
        self._output = None if is_last else activations_into(config, stage_index + 1)

    def learn(self, inputs: torch.Tensor, output: torch.Tensor | None) -> None:
        """A forward of these inputs, as they came, has been computed; its output, as it leaves."""
        if self._input is None and not self._is_first:
            self._input = FrameShape.of(inputs)
        if self._output is None and output is not None:
            self._output = FrameShape.of(output)

    def fits(self, message: Message, tensors: Sequence[torch.Tensor]) -> bool:
        """Return whether a message's tensors fit. Parts and snapshots are looked at where they are
        used."""
        match message:
            case Recover() if not self._is_first:
                return not tensors
            case Forward() | Recover():
                return (
                    len(tensors) == 2 and self._is_input(tensors[0]) and self._is_target(tensors[1])
                )
            case Backward():
                return len(tensors) == 1 and self._is_gradient(tensors[0])
        return not tensors

    def _is_input(self, tensor: torch.Tensor) -> bool:
        if self._is_first:
            return self._are_tokens(tensor)
        if self._input is not None:
            return FrameShape.of(tensor) == self._input
        return tensor.dtype.is_floating_point

    def _is_target(self, tensor: torch.Tensor) -> bool:
        sealed_bytes = self._batch.numel() * TOKENS.itemsize + TAG_BYTES
        return tensor.dtype == torch.uint8 and tensor.shape == (sealed_bytes,)

    def open_targets(
        self, key: bytes, microbatch: MicrobatchId, sealed: torch.Tensor
    ) -> torch.Tensor:
        """Return what the trainer has sealed, int64 [microbatch, sequence].

        Raises AccessError when this is not it.
        """
        opened = unseal(key, microbatch, sealed.numpy().tobytes())
        targets = torch.frombuffer(bytearray(opened), dtype=TOKENS).view(self._batch)
        if not self._are_tokens(targets):
            raise AccessError(f"the targets of microbatch {microbatch} are no tokens")
        return targets

    def _are_tokens(self, tensor: torch.Tensor) -> bool:
        if tensor.shape != self._batch or tensor.dtype != TOKENS:
            return False
        least, most = tensor.aminmax()
        return 0 <= int(least) and int(most) < self._vocab

    def _is_gradient(self, tensor: torch.Tensor) -> bool:
        if self._output is not None:
            return FrameShape.of(tensor) == gradient_of(self._config, self._output)
        return tensor.dtype.is_floating_point
