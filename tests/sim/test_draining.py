"""Leaving in peace: a drain that is taken back, and one that waits for whoever takes over."""

from __future__ import annotations

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Drain, Leaving
from swarmrt.scheduler.events import StopRequested
from swarmrt.scheduler.instructions import Stop
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.sim.swarm.world import World
from tests.scheduler.peer_core import Peer, sent


def run_for(world: World, seconds: float) -> None:
    until = world.clock.now + seconds
    while world.clock.now < until:
        world.clock.step()


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_drain_one_lose_the_other(stage: int, seed: int) -> None:
    """The one that drains serves again until a newcomer takes over: nothing is done again."""
    world = World((2, 2), seed=seed, steps=40, microbatches=4, eval_every=0, checkpoint_every=50)
    world.run_until(5)
    first, second = world.live(stage)
    core = world.peers[first].process.core
    assert isinstance(core, PeerCore)
    while not core.seat_core.accumulators.record:
        world.clock.step()  # until it holds something of a step
    world.drain(first)
    while not core.seat.is_draining:
        world.clock.step()
    assert world.peers[first].process.alive, "the other one is lost while it drains"
    world.kill(second)
    run_for(world, 20.0)
    assert len(world.disk.steps) > 5, "the stage is served by the one that wanted to leave"
    world.spawn(stage)
    world.run()
    assert not world.disk.rollbacks and world.disk.epoch == 1
    assert [report.version for report in world.disk.steps] == list(range(1, 41))
    stopped = world.peers[first].stopped
    assert stopped is not None and "drained" in stopped.reason


def test_lone_replica_that_wants_to_leave_serves_to_the_end_if_nobody_comes() -> None:
    world = World((2, 1), seed=2, steps=60, service_s=(0.2, 0.3))
    world.run_until(5)
    asked_at = world.clock.now
    world.drain(PeerId("s1p0"))
    world.run()
    assert world.clock.now > asked_at + 60 and not world.disk.rollbacks
    assert [report.version for report in world.disk.steps][-1] == 60


def test_owner_that_insists_is_obeyed_at_once() -> None:
    peer = Peer()
    assert sent(peer.feed(StopRequested("SIGTERM")), Leaving)
    assert any(isinstance(i, Stop) for i in peer.feed(StopRequested("SIGTERM")))


def peer_that_was_asked() -> Peer:
    peer = Peer()
    peer.feed(StopRequested("SIGTERM"))
    return peer


def test_drain_that_is_taken_back_is_one_no_more() -> None:
    peer = peer_that_was_asked()
    said = []
    for back in (False, True, False):
        peer.get(Drain(1, back))
        said.append(peer.core.seat.is_draining)
    assert said == [True, False, True]
