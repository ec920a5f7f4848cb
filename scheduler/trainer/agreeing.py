"""The words that count when replicas, which should be equal, say different things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from swarmrt.ids import SeatId

W = TypeVar("W", bound=Hashable)


def odd_ones(
    words: Mapping[SeatId, W], trust: Callable[[SeatId], Any], known: W | None = None
) -> list[SeatId]:
    """Return those who say something else than what is known, or than most say.

    Of words that equally many say, that of the most trusted peer counts, who has the least `trust`.
    """
    if known is None:
        counts = Counter(words.values())
        if len(counts) <= 1:
            return []
        speaker = min(words, key=lambda peer: (-counts[words[peer]], trust(peer)))
        known = words[speaker]
    return [peer for peer, word in words.items() if word != known]
