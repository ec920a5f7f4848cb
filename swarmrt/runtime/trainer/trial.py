"""The trial of a model on one microbatch of its data, before a run begins, where it has room."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.data import Data
from swarmrt.ids import MicrobatchId
from swarmrt.model.accelerators import NeedsAccelerator, accelerator
from swarmrt.model.layout import layout_from
from swarmrt.model.probe import check_shared, probe
from swarmrt.model.sizing import footprint
from swarmrt.runtime.computing.free_memory import SHARE, describe, free_bytes
from swarmrt.runtime.state.snapshot import snapshot_bytes

COPIES = 2  # of the model: in one piece, and cut


class Trial(NamedTuple):
    """The outcome of a trial that found nothing wrong."""

    was_made: bool
    notes: list[str]  # what the user should know, in sentences


def try_model(config: RunConfig, data: Data) -> Trial:
    """Compare the cut model with the whole one on the first microbatch, with the data's largest
    token in it.

    `config.stages.layers` must be set. Raises ModelError when they differ, CheckpointError when a
    stage has what no checkpoint can hold. A model that computes on no CPU is tried on an
    accelerator, if there is one.
    """
    check_shared(config)
    for stage in range(config.num_stages):
        snapshot_bytes(stage, 0, layout_from(config, stage).tensors)
    stages = [footprint(config, stage) for stage in range(config.num_stages)]
    needed = COPIES * sum(stage.state_bytes + stage.activations_bytes for stage in stages)
    inputs, targets = (torch.from_numpy(tokens) for tokens in data.microbatch(MicrobatchId(0, 0)))
    inputs[0, 0] = targets[0, 0] = data.largest_token
    try:
        return _try_on("cpu", needed, config, inputs, targets)
    except NeedsAccelerator as error:
        device = accelerator()
        if device is not None:
            return _try_on(device, needed, config, inputs, targets)
        why = f"the cut is not tried: the model computes on no CPU, and there is no GPU: {error}"
        return Trial(False, [why])


def _try_on(
    device: str, needed_bytes: int, config: RunConfig, inputs: Tensor, targets: Tensor
) -> Trial:
    free = free_bytes(device)
    if free is not None and needed_bytes > SHARE * free:
        why = (
            f"the cut is not tried, which takes {describe(needed_bytes)}: {describe(SHARE * free)} "
            f"of memory may be used on {device} here; `swarmrt check` does it on a larger machine"
        )
        return Trial(False, [why])
    return Trial(True, probe(config, inputs, targets, device))
