"""Schedules for swarms whose beacons are rare: no promise is broken."""

from __future__ import annotations

import pytest

from swarmrt.sim.schedules.crowds import draw
from swarmrt.sim.schedules.shrinking import play_all


@pytest.mark.parametrize("first", [0, 10])
def test_no_schedule_breaks_a_promise(first: int) -> None:
    """The schedules are those of other kinds. A soak plays more: `scripts/simulate_faults --kind
    crowds`."""
    play_all(draw(seed) for seed in range(first, first + 10))
