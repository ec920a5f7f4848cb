"""Schedules for swarms with spares: no promise is broken, and spares are let in."""

from __future__ import annotations

import pytest

from swarmrt.sim.schedules.faults import play
from swarmrt.sim.schedules.shrinking import play_all
from swarmrt.sim.schedules.spares import draw


@pytest.mark.parametrize("first", [0, 10])
def test_no_schedule_breaks_a_promise(first: int) -> None:
    """The schedules are those of faults and of hardships, with spares. A soak plays more:
    `scripts/simulate_faults --kind spares`."""
    play_all(draw(seed) for seed in range(first, first + 10))


def test_some_let_spares_in() -> None:
    covered = play(draw(107)).covered
    assert covered["spares let in"] and not covered["rollbacks"]
