"""The rounds of a simulated peer: slices, sums, and the next version that follows from them.

Who added up what is part of the weights' digest, because floating-point sums depend on it.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from swarmrt.ids import PeerId
from swarmrt.scheduler.events import (
    GradientCombined,
    PartSummed,
    PartUpdated,
    Stepped,
    UpdateJoined,
)
from swarmrt.scheduler.instructions import DropPart, KeepPart, StepOptimizer, SumPart
from swarmrt.sim.engine.process import Process
from swarmrt.sim.peer.computing import Computing
from swarmrt.sim.peer.jobs import Jobs
from swarmrt.sim.peer.state import State, update_of
from swarmrt.sim.swarm.fetching import History, Update, digest_of

Key = tuple[int, int, int]  # step, round, index


class Reducing:
    def __init__(self, process: Process, jobs: Jobs, state: State, computing: Computing) -> None:
        self._process, self._jobs, self._state = process, jobs, state
        self._computing = computing
        self._slices: dict[tuple[Key, PeerId], Counter[str]] = {}
        self._sums: dict[Key, Counter[str]] = {}
        self._reduced: dict[tuple[int, int], Counter[str]] = {}
        self._updated: dict[Key, History] = {}  # the next state, by each part's owner

    # ------------------------------------------------------------------ parts

    def keep(self, what: KeepPart, part: Any) -> None:
        key = (what.step, what.round, what.index)
        if what.updated:
            self._updated[key] = part
        elif what.summed:
            self._sums[key] = part
        else:
            self._slices[key, what.sender] = part

    def drop_part(self, what: DropPart) -> None:
        assert not what.summed, "of nobody who is honest"
        self._slices.pop(((what.step, what.round, what.index), what.sender), None)

    def drop_round(self, step: int, number: int) -> None:
        self._reduced.pop((step, number), None)
        self._updated = {k: v for k, v in self._updated.items() if k[:2] != (step, number)}
        self._sums = {k: v for k, v in self._sums.items() if k[:2] != (step, number)}
        self._slices = {k: v for k, v in self._slices.items() if k[0][:2] != (step, number)}

    def slice_of(self, step: int) -> Counter[str]:
        return self._computing.contribution(step)

    def sum_of(self, key: Key) -> Counter[str]:
        return self._sums[key]

    def updated(self, key: Key) -> History:
        return self._updated[key]

    def kept(self) -> int:
        """Return how many parts are here."""
        own = len(self._slices) + len(self._sums)
        return own + len(self._reduced) + len(self._updated)

    # ------------------------------------------------------------------ sums

    def sum_part(self, what: SumPart) -> None:
        total: Counter[str] = Counter()
        key = (what.step, what.round, what.index)
        for peer in what.contributors:
            total += (
                self._computing.contribution(what.step)
                if peer == self._process.me
                else self._slices.pop((key, peer))
            )
        self._sums[key] = total
        self._jobs.once_moving("reduce", lambda: self._process.feed(PartSummed(*key)))

    def combine(self, step: int, number: int, parts: int) -> None:
        sums = [self._sums[step, number, index] for index in range(parts)]
        assert all(part == sums[0] for part in sums), sums
        self._reduced[step, number] = sums[0]
        update = update_of(sums[0])
        combined = GradientCombined(step, number, digest_of((update,)), float(len(update)))
        self._jobs.once_moving("reduce", lambda: self._process.feed(combined))

    # ------------------------------------------------------------------ updates by owners

    def update_part(self, key: Key) -> None:
        self._jobs.once_moving("update", partial(self._update_part, key))

    def _update_part(self, key: Key) -> None:
        if key[:2] not in self._reduced:
            return  # it is void by now
        own = self._state.rounded(self._reduced[key[:2]])
        self._updated[key] = (*self._state.history, own)
        self._process.feed(PartUpdated(*key))

    def join(self, step: int, number: int, parts: int) -> None:
        its_digest = digest_of(self._joined(step, number, parts))
        joined = UpdateJoined(step, number, its_digest)
        self._jobs.once_moving("reduce", lambda: self._process.feed(joined))

    def _joined(self, step: int, number: int, parts: int) -> History:
        """Return the state of whose parts each was made by its owner."""
        states = [self._updated[step, number, index] for index in range(parts)]
        assert all(state[:-1] == states[0][:-1] for state in states), "owners had other states"
        return (*states[0][:-1], _joined_update([state[-1] for state in states]))

    # ------------------------------------------------------------------ the next version

    def step(self, what: StepOptimizer) -> None:
        """Make the next version: of the owners' parts, of the mean gradient, or of nothing."""
        step, number, snapshot = what.step, what.round, what.snapshot
        if what.adopt:
            state = self._joined(step, number, what.adopt)
            self._check_adopted((step, number), state)
            self._jobs.later(0.2, lambda: self._adopt(step, state, snapshot), "update")
            return
        update = () if what.skip else self._update(step, self._reduced[step, number])
        self._jobs.later(0.2, lambda: self._step(step, update, snapshot), "update")

    def _update(self, step: int, gradient: Counter[str]) -> Update:
        """Return what the arithmetic of this peer makes of a sum. Averaging uses operations that
        round once, so it is the same everywhere."""
        if self._computing.local.is_local(step):
            return update_of(gradient)
        return self._state.rounded(gradient)

    def _check_adopted(self, key: tuple[int, int], state: History) -> None:
        """Check that a member's state led to it. A newcomer, who has reduced nothing, may hold
        another one of the version."""
        if key in self._reduced:
            assert state[:-1] == self._state.history, "the owners' state was another"

    def _adopt(self, step: int, state: History, snapshot: bool) -> None:
        self._state.history = state[:-1]
        self._step(step, state[-1], snapshot)

    def _step(self, step: int, update: Update, snapshot: bool) -> None:
        state = self._state
        state.history = (*state.history, update)
        assert state.version == step + 1
        self._computing.accumulated.pop(step, None)
        local = self._computing.local.made(step)
        self._computing.local.check(state.history, self._computing.accumulated)
        if snapshot:
            state.keep_snapshot()
        self._process.feed(Stepped(step + 1, state.digest, local))


def _joined_update(updates: list[Update]) -> Update:
    """Join what owners made of one gradient: all of it, as each of them has rounded it."""
    joined = []
    for values in zip(*updates, strict=True):
        names = [name.split() for name, _ in values]
        assert len({(name[0], name[1]) for name in names}) == 1, values
        roundings = (" ".join(name[2:]) or "-" for name in names)
        joined.append((" ".join([*names[0][:2], *roundings]), values[0][1]))
    return tuple(joined)
