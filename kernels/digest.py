"""An exact fingerprint of a tensor's bytes, 128 bits, whatever device they are on.

Its plain meaning: the bytes are 64-bit words, little-endian, the last one filled up with zeros, and
one more word says how many bytes there are. Each word is mixed with its place into two words of 64
bits (`mixed`). The fingerprint is the sum of the first ones and the sum of the second ones, both
modulo 2^64. So words can be taken in any order, in parts, by any number of threads.

The mixing function is SplitMix64's (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
number generators", with the constants of Stafford's variant 13), whose state is here the word plus
its place times their constant gamma. The second word goes through one more round, of MurmurHash3's
64-bit finalizer (Appleby, public domain). Both are bijections of the word. Hence:

- Tensors of one size that differ in one word, by one bit or more, have different fingerprints.
- With more differences of any accidental kind (damaged blocks, two values swapped, all shifted by
  one, rounding that is not the same everywhere) both sums change as if at random: fingerprints are
  equal with a probability of 2^-128.
- Bytes are bytes: -0.0 is not 0.0, and a NaN is equal to those with the same payload only.

It is no guard against somebody who looks for a collision: nothing is secret, and sums can be solved
for. What comes from others over the wire or from disk is checked by SHA-256
(`swarmrt.runtime.state.snapshot`).
"""

from __future__ import annotations

import torch

from swarmrt.kernels.dispatch import implementation
from swarmrt.kernels.reference import GAMMA, MIX_1, MIX_2, MIX_3, WORD_BYTES

ALL = (1 << 64) - 1


class Digest:
    """The fingerprint of bytes that come piece by piece: what `digest` gives of all of them."""

    def __init__(self) -> None:
        self._first = self._second = self._words = 0
        self._rest = torch.empty(0, dtype=torch.uint8)  # of the pieces so far: less than a word

    def add(self, piece: torch.Tensor) -> None:
        """Add the next piece: contiguous, of any dtype, on the CPU."""
        data = piece.detach().reshape(-1).view(torch.uint8)
        if len(self._rest):
            filled = torch.cat([self._rest, data[: WORD_BYTES - len(self._rest)]])
            data = data[WORD_BYTES - len(self._rest) :]
            if len(filled) < WORD_BYTES:
                self._rest = filled
                return
            self._add_words(filled)
        whole = len(data) // WORD_BYTES * WORD_BYTES
        self._add_words(data[:whole])
        self._rest = data[whole:].clone()

    def _add_words(self, data: torch.Tensor) -> None:
        if len(data):
            first, second = implementation(data.device).fingerprint(data, self._words)
            self._first, self._second = self._first + first, self._second + second
            self._words += len(data) // WORD_BYTES

    def hexdigest(self) -> str:
        """Return 32 hex characters, of all that has been added."""
        ends = [self._words * WORD_BYTES + len(self._rest)]
        if rest := bytes(self._rest.tolist()):
            ends.insert(0, int.from_bytes(rest, "little"))
        first, second = self._first, self._second
        for place, word in enumerate(ends, self._words):
            one, other = mixed(word, place)
            first, second = first + one, second + other
        return f"{first & ALL:016x}{second & ALL:016x}"


def digest(tensor: torch.Tensor) -> str:
    """32 hex characters that two tensors share when their bytes are equal, and otherwise by no
    accident.

    `tensor` is contiguous, of any dtype and on any device, where it is read in place; no more
    memory is taken beside it than a few MB. Raises ValueError for a strided tensor.
    """
    if not tensor.is_contiguous():
        raise ValueError("only a contiguous tensor can be digested without a copy")
    whole = Digest()
    whole.add(tensor)
    return whole.hexdigest()


def mixed(word: int, place: int) -> tuple[int, int]:
    """What the word at this place, counted from 0, adds to both sums."""
    word = (word + (place + 1) * GAMMA) & ALL
    word = (word ^ word >> 30) * MIX_1 & ALL
    word = (word ^ word >> 27) * MIX_2 & ALL
    word ^= word >> 31
    return word, (word ^ word >> 33) * MIX_3 & ALL
