"""Going back to a checkpoint: when somebody who could go on does not."""

from __future__ import annotations

from functools import partial

import pytest

from swarmrt.ids import PeerId
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.sim.peer.jobs import Thread
from swarmrt.sim.swarm.world import TRAINER, World

LONE = PeerId("s1p0")


def whose_lone_replica_hangs_in_an_update_and_is_cut_off(
    seconds: float, steps: int, at_version: int
) -> World:
    """Return a swarm whose stage 1 has nobody but that replica, which is heard again, when a
    newcomer comes."""
    world = World((2, 1), seed=1, steps=steps, checkpoint_every=0, eval_every=0)
    world.run_until(at_version)
    core = world.peers[LONE].process.core
    assert isinstance(core, PeerCore)
    world.hang(LONE, "update", seconds)
    while not core.seat.is_stepping:
        world.clock.step()
    world.network.cut(LONE, TRAINER, 3.0)
    whole_at = world.clock.now + 4.0
    while world.clock.now < whole_at:
        world.clock.step()
    assert world.disk.pauses and not world.disk.rollbacks
    world.spawn(1)
    return world


@pytest.mark.parametrize("drains", [False, True])
def test_who_hangs_in_an_update_and_is_cut_off_keeps_nobody_from_going_back(drains: bool) -> None:
    """Found by a soak: it says for minutes that it has prepared the version that the others have,
    and was believed to be about to make it."""
    world = whose_lone_replica_hangs_in_an_update_and_is_cut_off(1000.0, steps=6, at_version=3)
    if drains:
        world.clock.after(4.0, partial(world.drain, LONE))
    world.run(limit_s=world.clock.now + 120.0)
    assert world.peers[LONE].jobs.is_hung and len(world.disk.rollbacks) == 1
    assert world.disk.steps[-1].version == 6


def test_who_hangs_for_less_than_going_back_costs_is_waited_for() -> None:
    """Ten steps would be lost, for which there is no checkpoint; it is away for a third of that."""
    world = whose_lone_replica_hangs_in_an_update_and_is_cut_off(20.0, steps=12, at_version=10)
    began_at = world.clock.now
    world.run()
    assert world.disk.committed_at[11] > began_at + 15.0, "it hung while a newcomer was there"
    assert not world.disk.rollbacks
    assert [report.version for report in world.disk.steps] == list(range(1, 13))


@pytest.mark.parametrize("thread", ["compute", "reduce", "update"])
def test_lone_replica_that_hangs_ends_no_run_that_a_newcomer_could_go_on_with(
    thread: Thread,
) -> None:
    """Found beside a soak: the run was given up after twenty minutes, though there was a checkpoint
    and somebody to serve from it."""
    world = World((2, 1), seed=1, steps=8, checkpoint_every=2, eval_every=0)
    world.run_until(5)
    world.hang(LONE, thread, 2000.0)
    world.spawn(1, after_s=10.0)
    world.run(limit_s=world.clock.now + 500.0)
    assert world.peers[LONE].jobs.is_hung and len(world.disk.rollbacks) == 1
    assert world.disk.steps[-1].version == 8
