"""The held-out loss of a whole model, in one process, on a text that its user names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.data.batches import Data
from swarmrt.data.codec import open_codec
from swarmrt.data.sources import read_tokens
from swarmrt.errors import DataError
from swarmrt.ids import MicrobatchId
from swarmrt.model.generate import load_whole
from swarmrt.run_identity import with_values

NEARLY_ALL = math.nextafter(1.0, 0.0)  # of a text's windows: one at least is for training


def open_unseen(text: str, runs: Sequence[RunConfig]) -> Data:
    """Return the text's data, read as the first of these runs reads its own.

    All but a few of its windows are held out, unless a run was trained on this very text: then
    those that this run held out. Raises DataError, also when such runs held out unlike shares.
    """
    config = with_values(runs[0], {"data.source": text})
    codec = open_codec(config)
    tokens, what = read_tokens(config, codec)
    digest = Data(config, codec, tokens, what).fingerprint
    shares = {run.data.held_out for run in runs if run.data.digest == digest}
    if len(shares) > 1:
        raise DataError(
            f"{text}: is what runs were trained on that held out unlike shares of it "
            f"(data.held_out {', '.join(map(str, sorted(shares)))}); give a text that none has seen"
        )
    share = shares.pop() if shares else NEARLY_ALL
    return Data(with_values(config, {"data.held_out": share}), codec, tokens, what)


class HeldOut:
    """A model that takes one set of weights after the other, and the batches that they are judged
    by."""

    def __init__(
        self,
        config: RunConfig,
        tensors: Mapping[str, Tensor],
        data: Data,
        sequences: int,
        device: str = "cpu",
    ) -> None:
        """Build the model, which is to fit these weights. At most so many of the held-out
        sequences are looked at. Raises ModelError and CheckpointError."""
        self._device = torch.device(device)
        self._whole = load_whole(config, tensors).to(self._device)
        self._mixed = config.precision.compute == "bfloat16"
        self._data = data
        size = config.batch.microbatch
        self._batches = max(1, min(sequences, len(data.held_out)) // size)
        self.sequences = self._batches * size

    def loss(self, weights: Iterable[tuple[str, Tensor]]) -> float:
        """Return the mean loss of a token with these weights, which are all of the model's."""
        live = self._whole.tensors()
        loss_sum, tokens = 0.0, 0
        with torch.no_grad():
            for name, values in weights:
                live[name].copy_(values)
            for index in range(self._batches):
                microbatch = MicrobatchId(0, index, held_out=True)
                arrays = self._data.microbatch(microbatch)
                inputs, targets = (torch.from_numpy(array).to(self._device) for array in arrays)
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed):
                    loss = self._whole.loss_sum(self._whole(inputs, microbatch), targets)
                loss_sum += loss.item()
                tokens += targets.numel()
        return loss_sum / tokens
