"""The members that are missing in late rounds and updates, and when they are done without.

Rules:
- Once is no reason: whatever hangs is missing again. Twice is one, when it has been waited for
  longer than it takes to do its work again, as with whoever is silent.
- Where nobody of a stage has its sum, they wait for each other. Who waits for a computation of its
  own says so, against itself; it is believed, unless all of them do. Else most of the others name
  one; else it is the least trusted. Who says so now is believed of the time before as well, if it
  was missing then: what hangs may not have been the first thing that it waited for.
- A stage's only replica is not done without. When it is late as well, those that were done without
  for it may come again: it was not they.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from swarmrt.ids import SeatId
from swarmrt.scheduler.trainer.membership.price import is_too_dear
from swarmrt.scheduler.trainer.run import Run

TWICE = 2


class Missing:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._times: Counter[SeatId] = Counter()  # that it was due to each of them
        self._absences: Counter[SeatId] = Counter()  # that each was missing, whoever it was due to
        self._since = 0.0
        self.done_without: list[SeatId] = []  # in this step, because others waited for them

    def begin(self, now: float) -> None:
        """Begin another step, whose first round, or whose update, is asked for now."""
        self._times.clear()
        self._absences.clear()
        self.done_without.clear()
        self._since = now

    def waited_s(self, now: float) -> float:
        """Return the seconds since the step's first round, or its update, was asked for."""
        return now - self._since

    def again(self, peers: Iterable[SeatId], missing: Iterable[SeatId], now: float) -> list[SeatId]:
        """Count once more each of those that it is due to, among all who are missing. Returns whom
        to do without."""
        found = []
        self._absences.update(missing)
        self._times.update(peers := list(peers))
        for peer in peers:
            member = self._run.members.get(peer)
            confesses = self._run.members.waits_for(peer) == peer
            times = self._absences[peer] if confesses else self._times[peer]
            if member is None or times < TWICE:
                continue
            if is_too_dear(self._run, member, self.waited_s(now)):
                found.append(peer)
        self.done_without += found
        return found


def blamed(
    missing: Sequence[SeatId], waits_for: Callable[[SeatId], SeatId], trust: Callable[[SeatId], Any]
) -> list[SeatId]:
    """Return those of a stage without any sum that it is due to, as far as can be told."""
    confessed = [peer for peer in missing if waits_for(peer) == peer]
    if 0 < len(confessed) < len(missing):
        return confessed
    named = Counter(waits_for(peer) for peer in missing)
    for peer, words in named.most_common(1):
        if peer in missing and words > 1 and 2 * words > len(missing) - 1 and not confessed:
            return [peer]
    return [max(missing, key=trust)]
