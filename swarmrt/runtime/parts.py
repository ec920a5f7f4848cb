"""The pieces of a stage's gradient on their way through a reduce, as they go over the wire.

With a codec, slices and sums travel encoded. An owner takes the sum as everyone else does, from the
encoded bytes, so that all replicas hold equal bits (promise P2). Encoding is a function of the
accumulator alone: a round that is void is repeated with the same outcome. Error feedback would need
a memory of what was sent, which churn would tear; the codecs offer it for other uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from swarmrt.ids import PeerId
from swarmrt.kernels.codecs import Bf16Codec, Codec, Int8Codec
from swarmrt.kernels.digest import digest
from swarmrt.scheduler.events import GradientCombined, PartSummed
from swarmrt.scheduler.instructions import CombineParts, KeepPart, SumPart
from swarmrt.scheduler.rounds import MAX_PART_BYTES

Precision = Literal["model", "bfloat16", "int8"]
CODECS: dict[Precision, Codec | None] = {
    "model": None,
    "bfloat16": Bf16Codec(),
    "int8": Int8Codec(),
}
NORM_PIECE = 1 << 16  # values


class Parts:
    """What a peer holds of its rounds.

    The methods that compute are given all that they need, and may run on another thread.
    """

    def __init__(self, me: PeerId, precision: Precision) -> None:
        self._me = me
        self._codec = CODECS[precision]
        self._slices: dict[tuple[int, int, int, PeerId], torch.Tensor] = {}
        self._sums: dict[tuple[int, int, int], torch.Tensor] = {}
        self._reduced: dict[tuple[int, int], torch.Tensor] = {}  # (step, round) → mean gradient

    @property
    def are_encoded(self) -> bool:
        return self._codec is not None

    # ------------------------------------------------------------------ what is here

    def fits(self, tensors: Sequence[torch.Tensor], gradients: torch.Tensor) -> bool:
        """Whether a message's tensors may be a part of such gradients."""
        if len(tensors) != 1 or tensors[0].dim() != 1:
            return False
        most_bytes = min(gradients.nbytes, MAX_PART_BYTES + gradients.itemsize)
        if self._codec is None:
            return tensors[0].dtype == gradients.dtype and tensors[0].nbytes <= most_bytes
        most = self._codec.encoded_bytes(most_bytes // gradients.itemsize)
        return tensors[0].dtype == torch.uint8 and tensors[0].nbytes <= most

    def keep(self, what: KeepPart, tensor: torch.Tensor) -> None:
        """A part that has come."""
        key = (what.step, what.round, what.index)
        if what.summed:
            self._sums[key] = tensor
        else:
            self._slices[(*key, what.sender)] = tensor

    def sum_of(self, step: int, number: int, index: int) -> torch.Tensor:
        """As it goes to the others."""
        return self._sums[step, number, index]

    def take_slices(self, what: SumPart) -> list[torch.Tensor | None]:
        """The contributors', in roster order; None stands for this peer's own."""
        key = (what.step, what.round, what.index)
        return [
            None if peer == self._me else self._slices.pop((*key, peer))
            for peer in what.contributors
        ]

    def take_sums(self, what: CombineParts) -> list[torch.Tensor]:
        """All of a round. What goes to others has been handed over by now."""
        return [self._sums.pop((what.step, what.round, index)) for index in range(what.parts)]

    def take_reduced(self, step: int, number: int) -> torch.Tensor:
        """The mean gradient [parameters] of a round that is combined."""
        return self._reduced.pop((step, number))

    def drop(self, step: int, number: int) -> None:
        """Forget a round."""
        self._reduced.pop((step, number), None)
        for part in [key for key in self._sums if key[:2] == (step, number)]:
            del self._sums[part]
        for piece in [key for key in self._slices if key[:2] == (step, number)]:
            del self._slices[piece]

    # ------------------------------------------------------------------ computing

    def encode(self, piece: torch.Tensor) -> torch.Tensor:
        """A slice of the accumulator, for its owner."""
        return piece if self._codec is None else self._codec.encode(piece.cpu())

    def sum_up(
        self, what: SumPart, slices: Sequence[torch.Tensor | None], mine: torch.Tensor
    ) -> PartSummed:
        """Promise P2: one owner adds in roster order, and everyone takes its bytes."""
        if self._codec is None:
            total = _sum([mine if piece is None else piece for piece in slices])
            total = torch.div(total, what.tokens)  # never in place: it may be the accumulator
        else:
            total = torch.zeros(mine.shape, dtype=mine.dtype)
            for piece in slices:
                if piece is None:
                    total += mine.cpu()
                else:
                    self._codec.decode_accumulate(piece, total)
            total = self._codec.encode(total.div_(what.tokens))
        self._sums[what.step, what.round, what.index] = total
        return PartSummed(what.step, what.round, what.index)

    def combine(
        self, what: CombineParts, sums: Sequence[torch.Tensor], numel: int
    ) -> GradientCombined:
        """The whole mean gradient, and its norm."""
        if self._codec is None:
            reduced = sums[0] if len(sums) == 1 else torch.cat(list(sums))
        else:
            reduced = torch.empty(numel)
            for index, encoded in enumerate(sums):
                self._codec.decode(encoded, reduced[part_range(numel, index, what.parts)])
        self._reduced[what.step, what.round] = reduced
        its_digest = digest(reduced) if len(sums) > 1 else ""  # alone, nothing to compare
        return GradientCombined(what.step, what.round, its_digest, squared_norm(reduced))


def squared_norm(values: torch.Tensor) -> float:
    """In float64, piece by piece, so that the float64 copy of a piece stays in the cache: of 13
    million values 9 ms, and 100 at once."""
    pieces = torch.split(values, NORM_PIECE)
    norms = [torch.linalg.vector_norm(piece, dtype=torch.float64) for piece in pieces]
    return float(torch.stack(norms).square().sum())


def part_range(numel: int, index: int, parts: int) -> slice:
    """The slice of a flat gradient that part `index` covers; sizes differ by at most one."""
    return slice(index * numel // parts, (index + 1) * numel // parts)


def _sum(slices: Sequence[torch.Tensor]) -> torch.Tensor:
    """In order; the first one is not changed."""
    total = slices[0].cpu()
    for number, piece in enumerate(slices[1:]):
        total = total.add_(piece.cpu()) if number else total + piece.cpu()
    return total
