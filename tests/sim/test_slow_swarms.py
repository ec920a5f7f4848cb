"""Swarms in which a microbatch takes minutes through all stages."""

from __future__ import annotations

import pytest

from swarmrt.sim.swarm.world import World


@pytest.mark.parametrize("replicas", [[1] * 4, [3] * 4, [2] * 8], ids=str)
def test_nothing_is_late_where_all_are_slow(replicas: list[int]) -> None:
    """Found by comparing simulations: before any claim had come, all that was under way went again,
    and again in the next step, and peers of whose work nothing had come were done without."""
    world = World(replicas, 1, steps=2, microbatches=48, eval_every=0, checkpoint_every=0,
                  service_s=(5.0, 5.0), queue_s=1000.0, staleness=1)  # fmt: skip
    world.run()
    assert not world.disk.recoveries, world.disk.fenced
    first, last = world.disk.steps
    assert last.seconds < 1.1 * 48 * 15.0 / replicas[0]
