"""What happens to everybody now and then fences nobody."""

from __future__ import annotations

import random

import pytest

from swarmrt.sim.world import World


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
