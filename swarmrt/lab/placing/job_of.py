"""The costs of a run's stages: measured on this machine, and told by their shapes."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from swarmrt.config import RunConfig
from swarmrt.kernels.codecs import wire_bytes
from swarmrt.model.build import build_layers
from swarmrt.model.partition import balanced_cut, check_stages, measure
from swarmrt.model.sizing import Footprint, footprint
from swarmrt.scheduler.placement.facts import Job, StageCost

EXACT_BYTES = 4  # of a gradient's value that is not encoded, where the model has no more


class Cut(NamedTuple):
    """A run with its cut, and what its stages cost."""

    config: RunConfig
    job: Job
    needed: tuple[Footprint, ...]  # memory, by stage


def job_of(config: RunConfig) -> Cut:
    """Cut a model by the measured cost of its layers, if it has no cut yet, and return what each
    stage costs. Raises ModelError."""
    check_stages(config)
    costs = measure(build_layers(config))
    seconds = [cost.seconds for cost in costs]
    layers = config.stages.layers or balanced_cut(
        seconds, config.num_stages, [cost.is_trained for cost in costs]
    )
    cut = config.with_stage_layers(layers)
    ends = list(itertools.accumulate(layers, initial=0))
    stages = []
    footprints = tuple(footprint(cut, stage) for stage in range(len(layers)))
    for needed, (first, last) in zip(footprints, itertools.pairwise(ends), strict=True):
        stages.append(
            StageCost(
                compute_s=sum(seconds[first:last]),
                output_bytes=float(config.frame_bytes),
                gradient_bytes=float(
                    wire_bytes(config.precision.gradients, needed.parameters, EXACT_BYTES)
                ),
                memory_bytes=float(needed.device_bytes + needed.host_bytes),
            )
        )
    overlaps = config.optimizer.staleness > 0
    return Cut(cut, Job(tuple(stages), config.batch.microbatches, overlaps=overlaps), footprints)
