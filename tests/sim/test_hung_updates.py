"""Updates that hang are found out, though their processes still beacon."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest

from swarmrt.ids import PeerId
from swarmrt.sim.swarm.world import TRAINER, World
from tests.sim.test_hangs import fenced


def test_update_that_hangs_is_found_out_though_its_peer_has_nothing_else_to_do() -> None:
    """Three replicas share one microbatch a step: nothing that one of them holds is late."""
    world = World((3, 1), seed=1, steps=12, microbatches=1, eval_every=0, eval_microbatches=1,
                  checkpoint_every=0, service_s=(0.05, 0.1))  # fmt: skip
    world.run_until(9)
    world.hang(PeerId("s0p0"), "update", 1000.0)
    world.run(limit_s=60.0)
    assert world.disk.steps[-1].version == 12 and "s0p0" in fenced(world)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_update_that_hangs_before_any_was_timed_is_found_out(seed: int) -> None:
    """Found by a soak: a trainer that has just been restarted does not know how long one takes."""
    world = World((3, 2), seed=seed, steps=6, microbatches=3, eval_every=0, checkpoint_every=0)
    world.run_until(1 + (seed == 2))
    world.kill_trainer()
    world.clock.after(4.0, world.resume_trainer)
    world.clock.after(1.2, partial(world.hang, PeerId("s1p0"), "update", 1000.0))
    world.run(limit_s=150.0)
    assert world.disk.steps[-1].version == 6 and "s1p0" in fenced(world)


def test_update_that_hangs_is_done_without_where_a_newcomer_has_the_version() -> None:
    """Found by a soak: of two, one has made the update and is lost a moment later, and comes again
    with it. The other one hangs in it, and was waited for: nobody else of its commit had it."""
    world = World((2, 1), seed=1, steps=12, eval_every=0, checkpoint_every=0)
    world.run_until(8)
    world.hang(PeerId("s0p1"), "update", 1000.0)
    while len(world.peers[PeerId("s0p0")].history) < 9:
        world.clock.step()
    assert len(world.disk.steps) == 8
    world.network.cut(PeerId("s0p0"), TRAINER, 2.0)
    world.run(limit_s=world.clock.now + 60.0)
    assert world.disk.steps[-1].version == 12 and "s0p1" in fenced(world)
    assert not world.disk.rollbacks


def test_updates_that_hang_together_are_found_out_once_one_of_them_moves() -> None:
    """Found by a soak: all replicas of a stage hang, and nobody could be told apart. So they were
    waited for twice as long each time, and at last for minutes, when one of them moves again."""
    world = World((3, 1), seed=1, steps=12, eval_every=0, checkpoint_every=0)
    world.run_until(8)
    for peer, seconds in (("s0p0", 100.0), ("s0p1", 1000.0), ("s0p2", 1000.0)):
        world.hang(PeerId(peer), "update", seconds)
    moves_at = world.clock.now + 100.0
    world.run_until(9)
    assert moves_at < world.clock.now < moves_at + 10.0
    assert fenced(world) == {"s0p1", "s0p2"}


def test_what_a_hung_replica_could_not_obey_is_asked_of_it_soon_after_it_moves() -> None:
    """Found by a soak: of the step after next it was asked to recover a microbatch, again and again
    in vain. When that step had come, the next word was due twice as long after the last one."""
    how = {"strategy": "async", "local_batch": 1}
    world = World([2, 2], seed=1, steps=10, microbatches=6, eval_every=0, averaging=how)
    world.run_until(2)
    moves_at = world.clock.now + 100.0
    world.hang(PeerId("s0p0"), "update", 100.0)
    world.clock.after(1.0, partial(world.kill, PeerId("s0p1")))
    world.run(limit_s=moves_at + 200.0)
    since = [at for at in world.disk.committed_at if at > moves_at - 1.0]
    assert len(since) >= 7
    assert max(later - at for at, later in pairwise(since)) < 10.0
