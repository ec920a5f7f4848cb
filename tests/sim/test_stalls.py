"""What happens to everybody now and then fences nobody."""

from __future__ import annotations

import random

import pytest

from swarmrt.ids import PeerId
from swarmrt.sim.swarm.world import TRAINER, World


@pytest.mark.parametrize("service_s", [(0.02, 0.04), (0.3, 0.5)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_process_that_stands_still_for_two_seconds_keeps_its_work(
    seed: int, service_s: tuple[float, float]
) -> None:
    """One of them every 15 s, whatever it is doing: computing, reducing, applying."""
    world = World((2, 3, 2), seed, steps=10**6, microbatches=8, eval_every=0, checkpoint_every=0,
                  service_s=service_s)  # fmt: skip
    world.run_until(5)
    rng, stood = random.Random(seed), 0
    for _ in range(12):
        until = world.clock.now + 15.0
        world.pause(rng.choice([peer for stage in range(3) for peer in world.live(stage)]), 2.0)
        stood += 1
        while world.clock.now < until:
            world.clock.step()
    assert stood == 12 and not world.disk.fenced, world.disk.fenced


@pytest.mark.parametrize(
    "minutes", [4, pytest.param(60, marks=pytest.mark.slow)], ids="{} min".format
)
def test_radio_that_stalls_for_two_seconds_each_minute_fences_nobody(minutes: int) -> None:
    """One of them, with all of its links; beacons are lost. The hour:
    `pytest -s -m slow tests/sim/test_stalls.py`.
    """
    world = World((2, 3, 2), seed=1, steps=10**6, microbatches=8, eval_every=0, checkpoint_every=0,
                  service_s=(0.3, 0.5))  # fmt: skip
    world.run_until(5)
    rng, versions = random.Random(1), len(world.disk.steps)
    for _ in range(minutes):
        until = world.clock.now + 60.0
        host = rng.choice([peer for stage in range(3) for peer in world.live(stage)])
        world.network.stall(host, 2.0)
        while world.clock.now < until:
            world.clock.step()
    fences = world.disk.recoveries["fenced"]
    print(f"{fences} fences in {minutes} min, {len(world.disk.steps) - versions} versions")
    assert fences == 0, world.disk.fenced


@pytest.mark.parametrize("seed", range(3))
def test_trainer_whose_own_radio_stalls_holds_that_against_nobody(seed: int) -> None:
    """Found by a soak: it heard nobody for four seconds, and fenced whom it would have heard."""
    world = World((2, 3, 2), seed, steps=10**6, microbatches=8, eval_every=0, checkpoint_every=0,
                  service_s=(0.02, 0.04))  # fmt: skip
    world.run_until(10)
    for stalls_s in (4.0, 12.0, 8.0):
        world.network.stall(TRAINER, stalls_s)
        until, versions = world.clock.now + stalls_s + 10.0, len(world.disk.steps)
        while world.clock.now < until:
            world.clock.step()
        assert len(world.disk.steps) > versions + 2
    assert not world.disk.fenced, world.disk.fenced


def test_who_dies_while_the_trainer_hears_nobody_is_found_out() -> None:
    world = World((2, 3, 2), seed=1, steps=10**6, microbatches=8, eval_every=0, checkpoint_every=0,
                  service_s=(0.02, 0.04))  # fmt: skip
    world.run_until(10)
    world.network.stall(TRAINER, 5.0)
    world.pause(PeerId("s1p0"), 1000.0)
    until = world.clock.now + 20.0
    while world.clock.now < until:
        world.clock.step()
    assert all("s1p0" in why for why in world.disk.fenced) and len(world.disk.fenced) == 1
    assert world.disk.committed_at[-1] > until - 2.0
