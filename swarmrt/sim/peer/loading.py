"""The loading of a simulated peer's state, from donors or, at version 0, anew."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from swarmrt.ids import PeerId
from swarmrt.scheduler.events import StateLoaded, StateUnavailable
from swarmrt.scheduler.instructions import LoadState
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.links import Sizes
from swarmrt.sim.engine.network import Network
from swarmrt.sim.engine.process import Process
from swarmrt.sim.peer.computing import Computing
from swarmrt.sim.peer.jobs import Jobs
from swarmrt.sim.peer.state import State
from swarmrt.sim.swarm.fetching import Exchange, History

SnapshotOf = Callable[[PeerId, int, int], History | None]  # of a donor, a stage and a version


class Loading:
    """A state comes in chunks over links where sizes are known; else it takes some time."""

    def __init__(
        self,
        stage: int,
        process: Process,
        clock: Clock,
        network: Network,
        rng: random.Random,
        jobs: Jobs,
        state: State,
        computing: Computing,
        snapshot_of: SnapshotOf,
        sizes: Sizes | None,
    ) -> None:
        self._stage, self._process, self._clock, self._rng = stage, process, clock, rng
        self._jobs, self._state, self._computing = jobs, state, computing
        self._snapshot_of = snapshot_of
        self._number = 0  # of the newest load
        self._exchange: Exchange | None = None
        if sizes is None:
            network.connect(process.me, process.feed)
        else:
            self._exchange = Exchange(process, clock, network, sizes.state_bytes, self._give)

    def load(self, what: LoadState) -> None:
        self._number += 1
        number, version, donors = self._number, what.version, what.donors
        if self._exchange is not None:
            self._exchange.turn_to((self._stage, version))
        if version > 0 and self._exchange is not None:
            done = partial(self._got, number, version)
            self._exchange.get(self._stage, version, what.digest, donors, done)
            return
        self._clock.after(
            self._rng.uniform(0.2, 2.0),
            lambda: self._got(number, version, self._find(version, donors)),
        )

    def stop(self) -> None:
        self._number += 1
        if self._exchange is not None:
            self._exchange.let_go()

    def _find(self, version: int, donors: tuple[PeerId, ...]) -> History | None:
        if version == 0:
            return ()
        states = (self._snapshot_of(donor, self._stage, version) for donor in donors)
        return next((state for state in states if state is not None), None)

    def _give(self, stage: int, version: int) -> History | None:
        """Return what others ask for, if it is here."""
        return self._state.snapshots.get(version) if stage == self._stage else None

    def _got(self, number: int, version: int, found: History | None) -> None:
        self._jobs.once_moving("load", lambda: self._take(number, version, found))

    def _take(self, number: int, version: int, found: History | None) -> None:
        if number != self._number:
            return  # a newer one has replaced it
        if found is None:
            self._process.feed(StateUnavailable(version, "no donor has it"))
            return
        self._jobs.later(0.0, lambda: self._loaded(number, found))

    def _loaded(self, number: int, history: History) -> None:
        if number != self._number:
            return
        self._state.history = history
        self._computing.clear()
        self._state.keep_snapshot()
        self._process.feed(StateLoaded(self._state.version, self._state.digest))
