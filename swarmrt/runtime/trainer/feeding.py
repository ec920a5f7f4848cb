"""The microbatches that a trainer sends: token ids, and targets sealed for the last stage.

What goes over all of the data takes long where there is much: its digest, and the order of each
epoch. It is done beside the event loop, and an epoch's order one epoch ahead.
"""

from __future__ import annotations

import asyncio

import torch

from swarmrt.data import Data
from swarmrt.ids import MicrobatchId
from swarmrt.trust.sealing import seal, targets_key
from swarmrt.trust.signing import Signer


class Feeding:
    """The batches of a run. Make it by `open`."""

    def __init__(self, data: Data, key: bytes) -> None:
        self.targets_key = key
        self._data = data
        self._shuffling: asyncio.Task[None] | None = None
        self._shuffled = -1  # the newest epoch that is, or is about to be

    @classmethod
    async def open(cls, data: Data, signer: Signer, step: int) -> Feeding:
        """Prepare to feed a run from this step on."""
        key = targets_key(signer, await asyncio.to_thread(data.digest))
        await asyncio.to_thread(data.shuffle, data.epoch_of(MicrobatchId(step, 0)))
        return cls(data, key)

    def batch(self, microbatch: MicrobatchId) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a forward at stage 0 gets: token ids, and sealed targets."""
        self._shuffle_ahead(microbatch)
        inputs, targets = self._data.microbatch(microbatch)
        sealed = seal(self.targets_key, microbatch, targets.tobytes())
        return torch.from_numpy(inputs), torch.frombuffer(bytearray(sealed), dtype=torch.uint8)

    def place_of(self, microbatch: MicrobatchId) -> str:
        """Return where a microbatch's windows lie in the data, for people."""
        return self._data.place_of(microbatch)

    def _shuffle_ahead(self, microbatch: MicrobatchId) -> None:
        """Begin with the next epoch when one begins."""
        following = self._data.epoch_of(microbatch) + 1
        if not microbatch.held_out and following > self._shuffled:
            self._shuffled = following
            self._shuffling = asyncio.create_task(asyncio.to_thread(self._data.shuffle, following))
