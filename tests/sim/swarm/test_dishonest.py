"""One peer of several is not honest, in each of the ways that can be seen without checking work:
the run comes to its end, with exact weights, and without it."""

from __future__ import annotations

from typing import Any

import pytest

from swarmrt.ids import PeerId
from swarmrt.sim.swarm.dishonest import Habit, habits
from swarmrt.sim.swarm.world import World

LAST = 2
VICTIM = PeerId("s2p0")
OWN_STEPS = {"drift not a number", "later than late", "less than no steps"}
EXPELLED = {"negative tokens", "huge tokens", "other weights"} | OWN_STEPS
WAYS: list[dict[str, Any]] = [
    {},
    {"staleness": 1},
    {},
    {"averaging": {"strategy": "async", "local_batch": 2}},
]  # by seed
STARVED = {"says that it takes no time", "takes all, does nothing"}  # if they are not found out
UNNOTICED = {"never loads"}  # nobody waits for it


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", habits(VICTIM))
def test_run_goes_on_without_whoever_is_not_honest(name: str, seed: int) -> None:
    world = World([2, 2, 3], seed, steps=14, microbatches=8, **WAYS[seed])
    world.run_until(version=2)
    liar = world.spawn(LAST, habit=habits(VICTIM)[name])
    world.run(limit_s=3600.0)  # checks the weights of all
    assert world.disk.steps[-1].version == 14
    whom = {reason.split(": ")[0].split(", ")[1] for reason in world.disk.fenced}
    assert liar in whom or name in STARVED | UNNOTICED, world.disk.fenced
    assert world.disk.expelled == ([liar] if name in EXPELLED else [])


@pytest.mark.parametrize("seed", range(4))
def test_gradients_that_nobody_granted_do_no_harm(seed: int) -> None:
    """A peer of the last stage gives one at once for all that it is handed."""
    world = World([2, 2, 2], seed, steps=14, microbatches=8, **WAYS[seed])
    world.run_until(version=2)
    world.spawn(LAST, habit=Habit(is_early=True))
    world.run(limit_s=3600.0)
    assert world.disk.steps[-1].version == 14
    assert not world.disk.fenced and not world.disk.recoveries["void round"]
