"""The tensors that stages send each other, told from the configuration.

The built-in decoder's follow from its sizes. Layers of the user's own are run on the meta device.
Code that looks at values cannot be run so: then it is only known once a frame was computed.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.meta import META, shapes_only

log = logging.getLogger("swarmrt.frames")


class FrameShape(NamedTuple):
    """Exactly what a tensor of this kind is like, on its way."""

    shape: torch.Size
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> FrameShape:
        return cls(tensor.shape, tensor.dtype)


def sent_dtype(config: RunConfig, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that activations computed in this one, and their gradients, travel in."""
    return torch.bfloat16 if config.precision.activations == "bfloat16" else dtype


def gradient_of(config: RunConfig, output: FrameShape) -> FrameShape:
    """Return what comes back for an output: the next stage computes in the model's dtype."""
    return FrameShape(output.shape, sent_dtype(config, getattr(torch, config.model.dtype)))


def activations_into(config: RunConfig, stage_index: int) -> FrameShape | None:
    """Return what this stage, which is not the first, gets from the one before it. None if it
    cannot be told without computing it."""
    layers = config.stages.layers
    assert layers is not None and stage_index > 0
    batch = (config.batch.microbatch, config.model.sequence)
    dtype: torch.dtype = getattr(torch, config.model.dtype)
    if config.model.kind == "decoder":
        return FrameShape(torch.Size((*batch, config.model.width)), sent_dtype(config, dtype))
    try:
        with shapes_only(config):
            before = Slice(build_layers(config), 0, sum(layers[:stage_index]))
        value = torch.zeros(batch, dtype=torch.int64, device=META)
        with torch.no_grad():
            for part in before.parts:
                value = part(value)
    except Exception as error:  # noqa: BLE001 - the user's code raises many kinds
        log.debug("the activations into stage %d are not known: %s", stage_index, error)
        return None
    computed = dtype if config.precision.compute == "bfloat16" else value.dtype
    return FrameShape(value.shape, sent_dtype(config, computed))
