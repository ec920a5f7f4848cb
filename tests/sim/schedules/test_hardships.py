"""Whole swarms whose bytes take time, under schedules of what befalls real ones: P1 and P2 after
every event, and a commit within its bound whenever each stage works."""

from __future__ import annotations

import pytest

from swarmrt.sim.engine.links import Sizes
from swarmrt.sim.schedules.faults import play
from swarmrt.sim.schedules.hardships import KINDS, draw
from swarmrt.sim.schedules.shrinking import play_all
from swarmrt.sim.swarm.liveness import Liveness
from swarmrt.sim.swarm.world import World

FIRST = 0
SLICE = 10  # seeds a test; `scripts/simulate_faults --kind hardships --seeds 100000` soaks


@pytest.mark.parametrize("first", range(FIRST, FIRST + 10 * SLICE, SLICE))
def test_no_schedule_breaks_a_promise(first: int) -> None:
    play_all(map(draw, range(first, first + SLICE)))


def test_schedules_cover_every_kind_of_hardship() -> None:
    covered = play(draw(0)).covered
    for seed in range(1, 60):
        covered += play(draw(seed)).covered
    kinds = {"join" if kind == "slow newcomer" else kind for kind in KINDS}
    assert all(covered[kind] for kind in kinds), covered
    assert all(covered[what] for what in ("fenced", "recovered", "void round", "rollbacks"))


def test_every_thread_hangs_in_some_schedule() -> None:
    faults = [fault for seed in range(100) for fault in draw(seed).faults if fault.kind == "hang"]
    assert {fault.thread for fault in faults} == {"compute", "reduce", "update", "load"}


def test_the_bound_follows_from_the_scenario() -> None:
    """Slower devices and larger gradients give more time."""

    def bound_s(service_s: float, gradient_bytes: int) -> float:
        sizes = Sizes(state_bytes=1000, gradient_bytes=gradient_bytes, activation_bytes=1000)
        world = World((2, 2), 0, service_s=(service_s, service_s), sizes=sizes)
        world.run_until(1)
        return Liveness(world).bound_s()

    assert bound_s(1.0, 1000) > bound_s(0.1, 1000) + 10
    assert bound_s(0.1, 1_000_000_000) > bound_s(0.1, 1000) + 10
