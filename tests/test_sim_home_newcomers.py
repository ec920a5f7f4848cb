"""Newcomers at home in the simulator: behind 20 Mb/s, or with a state that takes minutes."""

from __future__ import annotations

import itertools
import statistics

import pytest

from swarmrt.ids import PeerId
from swarmrt.sim.links import Link, Sizes
from swarmrt.sim.world import World

HOME = Link(up_bytes_per_s=2.5e6, down_bytes_per_s=2.5e6, latency_s=0.025)  # 20 Mb/s


def gaps(world: World) -> list[float]:
    """Between one commit and the next."""
    times = world.disk.committed_at
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def versions(world: World) -> list[int]:
    return [report.version for report in world.disk.steps]


def is_serving(world: World, peer: PeerId) -> bool:
    return len(world.peers[peer].history) == versions(world)[-1]


@pytest.mark.parametrize("load_s", [60, 400])
def test_nobody_waits_for_a_newcomer_whose_state_takes_long(load_s: int) -> None:
    """Two stages of two, steps of a second. Somebody comes whose link needs that long."""
    sizes = Sizes(int(load_s * 2.5e6), gradient_bytes=100_000, activation_bytes=1000)
    world = World((2, 2), seed=1, steps=200 + load_s, microbatches=6, service_s=(0.1, 0.1),
                  sizes=sizes, eval_every=0, checkpoint_every=0)  # fmt: skip
    world.run_until(3)
    newcomer = world.spawn(1, link=HOME)
    world.run()
    assert len(world.disk.steps) == 200 + load_s
    assert max(gaps(world)) < 2 * statistics.median(gaps(world)) + 0.2
    assert is_serving(world, newcomer)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("service_s", [0.8, 0.2])
def test_a_newcomer_at_home_gets_in_or_is_told_and_nobody_waits(
    service_s: float, replicas: int
) -> None:
    """The stage of 8 MB of gradients is the bottleneck; the newcomer brings 20 Mb/s and 50 ms.

    With steps of 19 s it is worth its way: then it serves from the second commit on. With steps of
    5 s a round with it takes as long as what it computes.
    """
    sizes = Sizes(24_000_000, gradient_bytes=8_000_000, activation_bytes=40_000)
    world = World((replicas, 1), seed=5, steps=30, microbatches=8 * replicas, sizes=sizes,
                  service_s=(0.02, 0.02), eval_every=0, checkpoint_every=0)  # fmt: skip
    for peer in world.live(0):
        world.peers[peer].service_s = service_s
    world.run_until(4)
    newcomer = world.spawn(0, link=HOME, service_s=service_s)
    world.run(limit_s=2000)
    assert len(world.disk.steps) == 30
    round_s = 8_000_000 / 2.5e6
    assert max(gaps(world)[3:]) < 2 * statistics.median(gaps(world)) + round_s
    first = next((r.version for r in world.disk.steps if newcomer in dict(r.digests[0])), None)
    if service_s == 0.8:
        assert first is not None and first <= 4 + 4
        assert is_serving(world, newcomer)
    else:
        assert is_serving(world, newcomer) or was_told_why(world, newcomer)


def was_told_why(world: World, peer: PeerId) -> bool:
    """In a sentence with the rate that its link has."""
    return any("b/s" in str(entry).lower() for entry in world.peers[peer].process.history)


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
            world.peers[peer].service_s = 0.8
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
