"""The content of a stage's state, whoever holds it: names, shapes, dtypes, and which of its tensors
are the parameters whose fingerprint replicas compare (decision 0009)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError
from swarmrt.kernels.digest import Digest
from swarmrt.model.meta import shapes_of
from swarmrt.model.stage import Stage


@dataclass(frozen=True)
class Layout:
    stage_index: int
    tensors: Mapping[str, Tensor]  # on the meta device
    parameters: tuple[str, ...]  # of the newest version, as they lie one after the other

    def check(self, tensors: Mapping[str, Tensor], its_digest: str, source: str) -> None:
        """Check that this is such a state, with these parameters. Raises CheckpointError.

        An empty digest is not compared.
        """
        for name, tensor in self.tensors.items():
            given = tensors.get(name)
            if given is None or (given.shape, given.dtype) != (tensor.shape, tensor.dtype):
                raise CheckpointError(f"{source} has not the tensor {name} of this stage")
        if len(tensors) != len(self.tensors):
            raise CheckpointError(f"{source} has tensors that are not of this stage")
        if its_digest and self.digest(tensors) != its_digest:
            raise CheckpointError(f"{source} holds other parameters than the swarm has agreed on")

    def digest(self, tensors: Mapping[str, Tensor]) -> str:
        """The fingerprint of a state's parameters."""
        whole = Digest()
        for name in self.parameters:
            whole.add(tensors[name])
        return whole.hexdigest()


def layout_of(stage: Stage) -> Layout:
    live = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in stage.live_state().items()
    }
    return Layout(stage.stage_index, live, stage.digested())


def layout_from(config: RunConfig, stage_index: int) -> Layout:
    """Return the layout of a stage that is not here."""
    return shapes_of(config, lambda: layout_of(Stage(config, stage_index, "meta")))
