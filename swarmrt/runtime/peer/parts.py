"""The pieces of a stage's gradient on their way through a reduce, as they go over the wire.

Sums go straight into one buffer of the whole mean gradient, on the CPU: a peer's own are added up
in it, those of others are written into it as they come. What is sent of it are views.

What is sent is for `payloads` to say. With a codec, an owner takes the sum as everyone else does,
from the encoded bytes, so that all replicas hold equal bits (promise P2). Encoding is a function of
the accumulator alone: a round that is void is repeated with the same outcome. Error feedback needs
a memory of what was sent: with decoupled momentum the stage has one, which only a version changes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import torch

from swarmrt.config import RunConfig
from swarmrt.ids import PeerId
from swarmrt.kernels.digest import digest
from swarmrt.runtime.peer.payloads import Payload, payload_of
from swarmrt.scheduler.events import GradientCombined, PartSummed, PartUnfit
from swarmrt.scheduler.instructions import CombineParts, DropPart, KeepPart, SumPart
from swarmrt.scheduler.peer.updating.cutting import MAX_PART_BYTES

log = logging.getLogger("swarmrt.parts")

NOBODY = PeerId("")
ROUNDS_LOOKED_AT = 1000
SQUARED_AT_ONCE = 1 << 16  # values: their squares, in float64, stay in the cache


class Mean:
    """The mean gradient of a round, while its parts come together."""

    def __init__(self, parts: int, values: torch.Tensor, unit: int) -> None:
        """Between `unit` values no cut is made."""
        self.parts = parts
        self.values = values
        self._unit = unit
        self.was_sent = False  # links may hold on to parts of it
        self.encoded: dict[int, torch.Tensor] = {}  # this peer's own sums, as they go to the others
        self.is_shared = False  # there are parts of other peers
        self._squares = [math.nan] * parts  # of each part's norm

    def part(self, index: int) -> torch.Tensor:
        """A view."""
        return self.values[part_range(len(self.values), index, self.parts, self._unit)]

    def filled(self, index: int) -> None:
        """Square the values of a part that has just got them, while they are in the cache."""
        pieces = torch.split(self.part(index), SQUARED_AT_ONCE)
        norms = [float(torch.linalg.vector_norm(p, dtype=torch.float64)) for p in pieces]
        self._squares[index] = sum(norm * norm for norm in norms)

    def is_finite(self, index: int) -> bool:
        """Return whether this part is finite, once it has its values."""
        return math.isfinite(self._squares[index])

    @property
    def squared_norm(self) -> float:
        """The squared norm, equal for all replicas, whatever the order in which the parts came."""
        return sum(self._squares)


class Parts:
    """The parts that a peer holds of its rounds.

    The methods that compute are given all that they need, and may run on another thread: one at a
    time, in the order of the instructions. They may run beside the model's own computations; what
    they make of an accumulator that changes meanwhile belongs to a round that is void.
    """

    def __init__(
        self, me: PeerId, payload: Payload, most: int, numel: Callable[[int], int]
    ) -> None:
        """A stage has `most` parameters; `numel` is how many values a step's rounds combine."""
        self._me, self._numel, self._payload = me, numel, payload
        longest = min(most, MAX_PART_BYTES // payload.dtype.itemsize + payload.unit)
        self._longest = max(payload.slice_length(longest), payload.sum_length(longest))
        self._slices: dict[tuple[int, int, int, PeerId], torch.Tensor] = {}
        self._early_sums: dict[tuple[int, int, int, PeerId], torch.Tensor] = {}
        self._means: dict[tuple[int, int], Mean] = {}  # (step, round) → mean gradient
        self._used: torch.Tensor | None = None  # memory for the next one; fresh pages are dear

    @property
    def are_encoded(self) -> bool:
        return self._payload.is_encoded

    # ------------------------------------------------------------------ what is here

    def fits(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Return whether a message's tensors may be a part of a round. The exact length is known
        once the round is."""
        if len(tensors) != 1 or tensors[0].dim() != 1:
            return False
        return tensors[0].dtype == self._payload.sent and len(tensors[0]) <= self._longest

    def unfit(
        self,
        what: KeepPart | SumPart | CombineParts,
        index: int,
        sender: PeerId,
        part: torch.Tensor,
    ) -> PartUnfit | None:
        """Return what is wrong with a part of this round, if anything is."""
        payload, is_slice = self._payload, isinstance(what, SumPart)
        where = part_range(self._numel(what.step), index, what.parts, payload.unit)
        length = payload.slice_length if is_slice else payload.sum_length
        size = length(where.stop - where.start)
        if len(part) != size:
            reason = f"has {len(part)} values where {size} belong"
        elif is_slice and not payload.is_sound(part):
            reason = "has frequencies that there are not"
        else:
            return None
        return PartUnfit(what.step, what.round, sender, reason)

    def keep(self, what: KeepPart, tensor: torch.Tensor) -> None:
        """A slice that has come, or a sum of a round that is not known yet."""
        key = (what.step, what.round, what.index)
        if what.summed:
            self._early_sums[(*key, what.sender)] = tensor
        else:
            self._slices[(*key, what.sender)] = tensor

    def mean(self, step: int, number: int, parts: int) -> Mean:
        """Return the mean of a round that is under way."""
        if (step, number) not in self._means:
            values, self._used = self._used, None
            if values is None or len(values) != self._numel(step):
                values = torch.empty(self._numel(step), dtype=self._payload.dtype)
            self._means[step, number] = Mean(parts, values, self._payload.unit)
        return self._means[step, number]

    def sum_of(self, step: int, number: int, index: int) -> torch.Tensor:
        """Return a sum as it goes to the others. It stays as it is for as long as anybody holds
        it."""
        mean = self._means[step, number]
        mean.was_sent = True
        return mean.encoded[index] if self._payload.is_encoded else mean.part(index)

    def take_slices(self, what: SumPart) -> list[torch.Tensor | None] | PartUnfit:
        """The contributors', in roster order; None stands for this peer's own. Or that one of them
        cannot be used."""
        key = (what.step, what.round, what.index)
        slices: list[torch.Tensor | None] = []
        for peer in what.contributors:
            piece = None if peer == self._me else self._slices.pop((*key, peer))
            unfit = self.unfit(what, what.index, peer, piece) if piece is not None else None
            if unfit is not None:
                return unfit
            slices.append(piece)
        return slices

    def take_early_sums(self, what: CombineParts) -> dict[int, torch.Tensor] | PartUnfit:
        """Take the sums that came before the Prepare, by index; or say that one of them cannot be
        used."""
        keys = [key for key in self._early_sums if key[:2] == (what.step, what.round)]
        early: dict[int, torch.Tensor] = {}
        for key in keys:
            index, sender, summed = key[2], key[3], self._early_sums.pop(key)
            unfit = self.unfit(what, index, sender, summed)
            if unfit is not None:
                return unfit
            early[index] = summed
        return early

    def values(self, step: int, number: int) -> torch.Tensor:
        """Return the mean gradient of a round that is combined."""
        return self._means[step, number].values

    def take_reduced(self, step: int, number: int) -> Mean:
        """The mean gradient of a round that is combined. Give it back when it is applied."""
        return self._means.pop((step, number))

    def give_back(self, mean: Mean) -> None:
        if not mean.was_sent:
            self._used = mean.values

    def drop_part(self, what: DropPart) -> None:
        """Forget one that came early, and is none of its round."""
        key = (what.step, what.round, what.index, what.sender)
        (self._early_sums if what.summed else self._slices).pop(key, None)

    def drop(self, step: int, number: int) -> None:
        """Forget a round."""
        self._means.pop((step, number), None)
        for part in [key for key in self._early_sums if key[:2] == (step, number)]:
            del self._early_sums[part]
        for piece in [key for key in self._slices if key[:2] == (step, number)]:
            del self._slices[piece]

    # ------------------------------------------------------------------ computing

    def encode(self, piece: torch.Tensor) -> torch.Tensor:
        """A slice of what this peer gives, for its owner."""
        return self._payload.encode(piece)

    def sum_up(
        self,
        what: SumPart,
        mean: Mean,
        slices: Sequence[torch.Tensor | None],
        mine: torch.Tensor,
    ) -> PartSummed:
        """Promise P2: one owner adds in roster order, and everyone takes its bytes."""
        summed = self._payload.add_up(slices, mine, mean.part(what.index), what.tokens)
        if summed is not None:
            mean.encoded[what.index] = summed
        mean.filled(what.index)
        culprit = NOBODY
        if not mean.is_finite(what.index):
            culprit = self._whose_is_not_finite(what, slices, mine)
        return PartSummed(what.step, what.round, what.index, culprit)

    def _whose_is_not_finite(
        self, what: SumPart, slices: Sequence[torch.Tensor | None], mine: torch.Tensor
    ) -> PeerId:
        """The first contributor whose slice is not finite; nobody if it is only the sum."""
        for peer, piece in zip(what.contributors, slices, strict=True):
            if not self._payload.is_finite(piece, mine):
                log.warning("the gradient of step %d by %s is not finite", what.step + 1, peer)
                return peer
        return NOBODY

    def place(self, mean: Mean, index: int, summed: torch.Tensor) -> None:
        """Take another owner's sum."""
        self._payload.place(summed, mean.part(index))
        mean.is_shared = True
        mean.filled(index)

    def combine(
        self, what: CombineParts, mean: Mean, early: Mapping[int, torch.Tensor]
    ) -> GradientCombined:
        """Return the digest and norm of the whole mean: all sums are here."""
        for index, summed in early.items():
            self.place(mean, index, summed)
        its_digest = digest(mean.values) if mean.is_shared else ""  # alone, nothing to compare
        return GradientCombined(what.step, what.round, its_digest, mean.squared_norm)


def combined_bytes(config: RunConfig, like: torch.Tensor, numel: Callable[[int], int]) -> int:
    """Return how many bytes what replicas combine after a step has on its way: in the largest of
    many such rounds, without the last one. A gradient is like this, and `numel` says how many
    values a step's rounds combine."""
    first, last = config.averaging.sync_steps, config.run.steps - 1
    most = len(like)
    if config.averaging.is_on and first < last:
        rounds = range(first, min(last, first + ROUNDS_LOOKED_AT))
        most = max(map(numel, rounds)) or most
    payload = payload_of(config)
    return payload.sum_length(most) * payload.sent.itemsize


def part_range(numel: int, index: int, parts: int, unit: int = 1) -> slice:
    """The slice of a flat gradient that part `index` covers; sizes differ by at most one unit."""
    units = -(-numel // unit)
    first, end = index * units // parts * unit, (index + 1) * units // parts * unit
    return slice(first, min(end, numel))
