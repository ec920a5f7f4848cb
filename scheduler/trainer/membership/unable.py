"""The peers that cannot serve, by their own word, and what people are told of them.

Rules:
- Whoever was invited may say so, which costs a line: a few are remembered of each stage, and a few
  told in a minute.
- Who takes part is forgotten here.
- What is remembered explains for whom a stage waits that nobody serves.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from swarmrt.ids import SeatId

MOST_KNOWN = 8  # of a stage, the newest
MOST_TOLD, WITHIN_S = 8, 60.0  # at once, of all stages
OLD_S = 3600.0  # it explains nothing any more


class Word(NamedTuple):
    """A peer's last reason, and when it came."""

    reason: str
    at: float


class Unable:
    def __init__(self, num_stages: int) -> None:
        self._words: tuple[dict[SeatId, Word], ...] = tuple({} for _ in range(num_stages))
        self._told: deque[float] = deque(maxlen=MOST_TOLD)

    def add(self, peer: SeatId, stage: int, reason: str, now: float) -> bool:
        """Remember why a peer cannot serve; return whether people are to be told at once."""
        words = self._words[stage]
        earlier = words.pop(peer, None)
        words[peer] = Word(reason, now)  # the newest last
        if len(words) > MOST_KNOWN:
            del words[next(iter(words))]
        is_news = earlier is None or earlier.reason != reason or now - earlier.at > OLD_S
        is_too_much = len(self._told) == MOST_TOLD and now - self._told[0] < WITHIN_S
        if not is_news or is_too_much:
            return False
        self._told.append(now)
        return True

    def discard(self, peer: SeatId) -> None:
        """Forget a peer that takes part."""
        for words in self._words:
            words.pop(peer, None)

    def why(self, stage: int, now: float) -> str:
        """Return how many could not serve a stage of late, and the newest reason; empty for
        none."""
        words = [(peer, word) for peer, word in self._words[stage].items() if now - word.at < OLD_S]
        if not words:
            return ""
        peer, word = words[-1]
        number = f"{len(words)} peers, the last of them {peer}," if len(words) > 1 else peer
        return f"{number} could not serve it: {word.reason}"
