"""Whole swarms whose replicas make steps of their own, under seeded schedules of all kinds: what a
version has, and what each replica's own weights have, exactly once, after every event."""

from __future__ import annotations

import pytest

from swarmrt.sim.schedules.averaging import DRAWS, draw
from swarmrt.sim.schedules.shrinking import play_all

SLICE = 10  # seeds a test; `scripts/simulate_faults --kind averaging` soaks


@pytest.mark.parametrize("first", range(0, 5 * SLICE, SLICE))
def test_no_schedule_breaks_a_promise(first: int) -> None:
    play_all(map(draw, range(first, first + SLICE)))


def test_schedules_are_of_all_kinds() -> None:
    drawn = [draw(seed) for seed in range(10 * len(DRAWS))]
    assert all(bool(scenario.local_batch) != scenario.has_momenta for scenario in drawn)
    assert any(scenario.has_momenta for scenario in drawn)
    assert any(scenario.every_s for scenario in drawn)
    assert {scenario.sync_steps > 0 for scenario in drawn} == {True, False}
    assert any(scenario.sizes for scenario in drawn) and any(scenario.hosts for scenario in drawn)
    assert {scenario.islands for scenario in drawn} == {1, 2, 3}
    assert any(scenario.spares for scenario in drawn)
    assert any(scenario.unlike_share for scenario in drawn)
