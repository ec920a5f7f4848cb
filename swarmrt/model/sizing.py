"""The memory that a stage takes, told before anything is built.

Layers are built on torch's meta device, where tensors have shapes and no memory. For the decoder
what a microbatch leaves for backward follows from its shapes. Layers of the user's own are run on
the meta device as well, and what autograd would save is added up.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.kernels.codecs import wire_bytes
from swarmrt.model.build import Layered, Slice
from swarmrt.model.builders import BUILT_IN
from swarmrt.model.decoupled import spectrum_of
from swarmrt.model.layers import feed_forward_width
from swarmrt.model.meta import META, shapes_of
from swarmrt.model.muon import WORKING_MATRICES
from swarmrt.model.partition import check_stages
from swarmrt.model.pieces import Piece, most_rows, pieces_of, slots
from swarmrt.model.strategies import strategy_of
from swarmrt.scheduler.following import Store
from swarmrt.scheduler.peer.updating.cutting import early_bytes

log = logging.getLogger("swarmrt.sizing")

MOST_SNAPSHOTS = 3  # that a peer has for others, one that is being made with them
WORKING_MATRICES_OF_OWNERS = 3  # `updating.LastMade` has two, made of a third, the gradient
MOST_LANDINGS = 2  # of a newcomer's: the version that it loads, and one that it has begun before


@dataclass(frozen=True)
class Footprint:
    """The memory that a stage needs for training. As text it is for people."""

    parameters: int
    state_bytes: int  # parameters, gradients, moments, and what Muon works on
    activations_bytes: int  # left for backward by as many microbatches as are under way
    whole_model_bytes: int  # of layers that a builder makes at once, whoever serves them
    frames_bytes: int  # kept until the step is committed, so that others can recover
    joining_bytes: int  # of states that a newcomer loads, or that it has for others, and of steps
    early_bytes: int  # of parts whose round is not known yet
    kept_bytes: int = 0  # by one microbatch from its forward to its backward; 0 where nobody knows
    under_way: int = 1  # microbatches, of one forward and one backward in turn
    snapshot_bytes: int = 0  # of one state that it has for others

    @property
    def device_bytes(self) -> int:
        return self.state_bytes + self.activations_bytes

    @property
    def host_bytes(self) -> int:
        return self.whole_model_bytes + self.frames_bytes + self.joining_bytes + self.early_bytes

    def peak_bytes(self, snapshots: int) -> int:
        """Return what is really there at the most, in a peer that has been there from the start and
        has so many states for others. The bounds, of which a stage must fit into the memory, count
        what newcomers and hostile peers may make of it besides."""
        kept_bytes = self.whole_model_bytes + self.frames_bytes
        return self.device_bytes + kept_bytes + snapshots * self.snapshot_bytes

    def __str__(self) -> str:
        parts = [f"{self.parameters:,} parameters with their gradients and moments"]
        parts += ["activations"] if self.activations_bytes else []
        parts += ["all layers of its builder"] if self.whole_model_bytes else []
        parts += ["frames for others"] if self.frames_bytes else []
        parts += ["what a newcomer loads and keeps of steps that it misses"]
        parts += ["parts of gradients that come early"]
        return ", ".join(parts)


def capacity(config: RunConfig, needed: Footprint, left_bytes: float) -> int:
    """Return how many microbatches may be between forward and backward, with so much memory beside
    what is needed; 0 for as many as there ever are, or where nobody knows what one takes."""
    most = config.batch.microbatches * (1 + config.overlap)
    if not needed.kept_bytes or left_bytes >= most * needed.kept_bytes:
        return 0
    holds = needed.under_way + int(max(0.0, left_bytes) / needed.kept_bytes)
    return holds if holds < most else 0


def footprint(config: RunConfig, stage_index: int) -> Footprint:
    """Return what this stage needs. `config.stages.layers` must be set.

    Raises ModelError for a model that cannot be built or cut so.
    """
    return shapes_of(config, lambda: _footprint(config, stage_index))


def _footprint(config: RunConfig, stage_index: int) -> Footprint:
    layers = config.stages.layers
    assert layers is not None, "call partition.resolve(config) first"
    first = sum(layers[:stage_index])
    model = check_stages(config)
    mine = Slice(model, first, first + layers[stage_index]).to(META)
    pieces = pieces_of(config, mine.trainable(), mine.hidden_matrices())
    count = sum(piece.size for piece in pieces)
    fixed_bytes = sum(tensor.nbytes for tensor in mine.tensors().values())
    batch = config.batch
    under_way = min(batch.microbatches, len(layers) - stage_index)  # one forward, one backward
    needs = _activations(model, mine, is_first=stage_index == 0)
    frames = batch.microbatches * ((stage_index > 0) + (stage_index < len(layers) - 1))
    gradient_bytes = count * _exact_bytes(config)
    moments_bytes = _moments_bytes(config, pieces)
    told_bytes, beside_bytes = moments_bytes, moments_bytes + _working_bytes(config, pieces)
    if config.averaging.is_on:
        told_bytes = _anchor_bytes(config, count, moments_bytes)
        beside_bytes += told_bytes
    return Footprint(
        parameters=count,
        state_bytes=fixed_bytes + count * _bytes_per_parameter(config) + beside_bytes,
        activations_bytes=under_way * needs.kept_bytes + needs.again_bytes,
        whole_model_bytes=model.built_bytes,
        frames_bytes=min(config.links.retain_bytes, frames * needs.frame_bytes),
        joining_bytes=_joining_bytes(config, count, told_bytes, fixed_bytes),
        snapshot_bytes=_snapshot_bytes(config, count, told_bytes, fixed_bytes),
        early_bytes=early_bytes(gradient_bytes, most_rows(config) * gradient_bytes),
        kept_bytes=needs.kept_bytes,
        under_way=under_way,
    )


def _bytes_per_parameter(config: RunConfig) -> int:
    """Beyond the weights themselves and moments: masters, accumulators, the reduced gradient, and
    where steps overlap two copies to run on. With averaging also the replica's own weights, what
    they are ahead of the next version, and a contribution. With decoupled momentum that one, and
    what it becomes."""
    dtype: torch.dtype = getattr(torch, config.model.dtype)
    exact = _exact_bytes(config)
    masters = exact if dtype.itemsize < exact else 0
    gradients = dtype.itemsize + masters
    again = config.overlap * (2 * dtype.itemsize + gradients)
    apart = 3 * exact if config.averaging.is_on else 0
    momentum = 2 * exact if config.averaging.is_decoupled else 0
    return masters + gradients + exact + again + apart + momentum


def _exact_bytes(config: RunConfig) -> int:
    """Return the size of a value that is added up: a gradient's, or a moment's."""
    return torch.promote_types(getattr(torch, config.model.dtype), torch.float32).itemsize


def _moments_bytes(config: RunConfig, pieces: list[Piece]) -> int:
    values = sum(piece.size * len(slots(config, piece.rule)) for piece in pieces)
    return values * _exact_bytes(config)


def _anchor_bytes(config: RunConfig, count: int, moments_bytes: int) -> int:
    """Return what the anchor of replicas that are averaged has beside its parameters."""
    buffers = len(strategy_of(config, count).slots) * count * _exact_bytes(config)
    return buffers + (moments_bytes if config.averaging.sync_steps else 0)


def _working_bytes(config: RunConfig, pieces: list[Piece]) -> int:
    """Return what an update takes for a while beside the state: of the largest matrix, where whole
    ones are updated."""
    largest = max((piece.size for piece in pieces if piece.shape is not None), default=0)
    owned = WORKING_MATRICES_OF_OWNERS if config.optimizer.applied_by == "owners" else 0
    return largest * (WORKING_MATRICES + owned) * _exact_bytes(config)


def _joining_bytes(config: RunConfig, count: int, told_bytes: int, fixed_bytes: int) -> int:
    """Return what a newcomer has of so many parameters, and of what else a state tells: the version
    that it loads, what has landed of another one, and steps. Or what it has for others once it is
    in, if that is more."""
    exact = _exact_bytes(config)
    gradient_bytes = _sum_bytes(config, count)
    store = Store(gradient_bytes, most_rows(config) * count * exact)
    steps_bytes = store.bound_bytes(by_owners=config.optimizer.applied_by == "owners")
    state_bytes = _snapshot_bytes(config, count, told_bytes, fixed_bytes)
    return max(MOST_LANDINGS * state_bytes + steps_bytes, MOST_SNAPSHOTS * state_bytes)


def _sum_bytes(config: RunConfig, count: int) -> int:
    """Return the size of what a newcomer keeps of a step, for so many parameters."""
    if config.averaging.is_decoupled:
        spectrum = spectrum_of(config)
        return spectrum.rows(count) * spectrum.signs_bytes
    return wire_bytes(config.replicas_precision, count, _exact_bytes(config))


def _snapshot_bytes(config: RunConfig, count: int, told_bytes: int, fixed_bytes: int) -> int:
    """Return a state as others get it: parameters, what else it tells, masters where those are
    rounded, and with staleness the version before."""
    exact = _exact_bytes(config)
    itemsize: int = getattr(torch, config.model.dtype).itemsize
    masters_bytes = count * exact if itemsize < exact else 0
    previous_bytes = config.optimizer.staleness * count * itemsize
    return fixed_bytes + told_bytes + masters_bytes + previous_bytes


# ---------------------------------------------------------------------- activations


class Activations(NamedTuple):
    """The memory of computing beside parameters, and what is sent."""

    kept_bytes: int  # by one microbatch from its forward to its backward
    again_bytes: int  # by the one that is computed again, with `model.recompute`
    frame_bytes: int  # of activations between two stages


def _activations(model: Layered, mine: Slice, is_first: bool) -> Activations:
    config = model.config
    is_built_in = config.model.kind == BUILT_IN
    saved_bytes, input_bytes, frame_bytes = (
        _saved_by_decoder(config, mine) if is_built_in else _saved_on_meta(model, mine, is_first)
    )
    if config.model.recompute:
        return Activations(input_bytes, saved_bytes, frame_bytes)
    return Activations(saved_bytes, 0, frame_bytes)


def _saved_by_decoder(config: RunConfig, mine: Slice) -> tuple[int, int, int]:
    """Bytes that autograd saves in these layers, with attention in one kernel; of their input; of a
    frame."""
    model = config.model
    item = getattr(torch, model.dtype).itemsize
    exact = max(item, 4)  # norms and losses are computed in at least float32
    width, hidden = model.width, feed_forward_width(model.width)
    dropped = 2 * width if model.dropout else 0
    block = 4 * exact * width + item * (6 * width + 4 * hidden + dropped)
    head = exact * (2 * width + model.vocab) + item * width
    saved = (mine.last - mine.first) * block + (head if mine.last == model.layers else 0)
    tokens = config.batch.microbatch * model.sequence
    return tokens * saved, tokens * width * item, tokens * width * item


def _saved_on_meta(model: Layered, mine: Slice, is_first: bool) -> tuple[int, int, int]:
    """Return what the user's own layers save, which are run in order up to these.

    Code that looks at values cannot be run so: its activations are not counted.
    """
    config = model.config
    shape = (config.batch.microbatch, config.model.sequence)
    tokens = torch.zeros(shape, dtype=torch.int64, device=META)
    try:
        inputs = tokens
        with torch.no_grad():
            for index in range(mine.first):
                inputs = _run(Slice(model, index, index + 1).to(META), inputs)
        saved = _Saved(mine)
        with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor):
            output = _run(mine, inputs if is_first else inputs.detach().requires_grad_())
            if mine.last == len(model.layers):
                model.loss_sum(output, tokens)
        return saved.bytes, inputs.nbytes, max(output.nbytes, 0 if is_first else inputs.nbytes)
    except Exception as error:  # noqa: BLE001 - the user's code raises many kinds
        log.debug("activations of stage layers %d… are not counted: %s", mine.first, error)
        return 0, 0, 0


def _run(layers: Slice, value: Tensor) -> Tensor:
    for part in layers.parts:
        value = part(value)
    return value


class _Saved:
    """Tensors that autograd saves, each storage once, without the layers' own."""

    def __init__(self, layers: Slice) -> None:
        self._own = {_storage(tensor) for tensor in layers.tensors().values()}
        self._kept: dict[int, Tensor] = {}  # they stay, so that no storage takes another's place

    def add(self, tensor: Tensor) -> Tensor:
        self._kept.setdefault(_storage(tensor), tensor)
        return tensor

    @property
    def bytes(self) -> int:
        kept = [tensor for key, tensor in self._kept.items() if key not in self._own]
        return sum(tensor.untyped_storage().nbytes() for tensor in kept)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
