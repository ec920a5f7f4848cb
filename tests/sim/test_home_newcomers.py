"""Newcomers at home in the simulator: behind 20 Mb/s, or with a state that takes minutes."""

from __future__ import annotations

import pytest

from swarmrt.sim.engine.links import Link, Sizes
from swarmrt.sim.swarm.world import World

HOME = Link(up_bytes_per_s=2.5e6, down_bytes_per_s=2.5e6, latency_s=0.025)  # 20 Mb/s


@pytest.mark.parametrize("early_s", [0.3, 0.6, 1.0])
def test_who_comes_just_before_a_commit_gets_the_state_of_that_commit(early_s: float) -> None:
    """A home link, one replica, steps of 19 s: who is not heard of in time waits for one more.

    Its process is up so long before version 5 is committed, which takes 0.2 s from Apply on. It is
    a member of the next commit.
    """
    sizes = Sizes(24_000_000, gradient_bytes=8_000_000, activation_bytes=40_000)

    def world() -> World:
        world = World((1, 1), seed=5, steps=9, microbatches=8, sizes=sizes,
                      service_s=(0.02, 0.02), eval_every=0, checkpoint_every=0)  # fmt: skip
        for peer in world.live(0):
            world.peers[peer].jobs.service_s = 0.8
        return world

    before = world()
    before.run_until(5)
    commit_at = before.disk.committed_at[-1]
    story = world()
    story.run_until(4)
    newcomer = story.spawn(0, commit_at - early_s - story.clock.now, link=HOME, service_s=0.8)
    story.run()
    first = next(r.version for r in story.disk.steps if newcomer in dict(r.digests[0]))
    assert first <= 6
