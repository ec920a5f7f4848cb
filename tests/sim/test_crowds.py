"""Swarms that are large for their trainer: beacons are rare, and who is lost is found out nearly as
soon as in any other. What the trainer handles is lowered in place of making swarms of thousands."""

from __future__ import annotations

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Beacon
from swarmrt.scheduler.events import Received
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.scheduler.trainer.membership.fencing.draining import HAS_LEFT
from swarmrt.scheduler.trainer.membership.members import Member
from swarmrt.sim.swarm.world import World
from tests.sim.test_hangs import HANGS, seconds_until_fenced

PER_S = 0.6  # beacons that the trainer handles: each of a dozen peers beacons every 20 s
SETTLED_S = 60.0
VICTIM = "s1p2"


def crowd(per_s: float = PER_S) -> World:
    """Return a swarm that has worked for a minute."""
    world = World((4, 4, 4), seed=1, steps=10**6, microbatches=12, eval_every=0,
                  checkpoint_every=0, service_s=(0.3, 0.6), most_beacons_per_s=per_s)  # fmt: skip
    go_on(world, SETTLED_S)
    return world


def go_on(world: World, seconds: float) -> None:
    until = world.clock.now + seconds
    while world.clock.now < until:
        world.clock.step()


def beacons(world: World, since: float) -> int:
    history = (record for record in world.trainer.process.history if record.now >= since)
    events = [record.event for record in history]
    return sum(isinstance(e, Received) and isinstance(e.message, Beacon) for e in events)


def members(world: World) -> list[Member]:
    core = world.trainer.process.core
    assert isinstance(core, TrainerCore)
    return list(core.run.members)


@pytest.mark.parametrize("per_s", [PER_S, 3.0])
def test_the_trainer_hears_no_more_than_it_handles_and_suspects_nobody(per_s: float) -> None:
    world = crowd(per_s)
    go_on(world, 100.0)
    assert beacons(world, SETTLED_S) <= 1.25 * per_s * 100.0 + len(world.peers)
    assert not world.disk.recoveries and not any(member.suspect for member in members(world))
    world.check()


def test_nobody_is_suspected_as_the_swarm_grows_and_shrinks() -> None:
    world = crowd(3.0)
    newcomers = [world.spawn(stage) for stage in (0, 1, 2) for _ in range(4)]
    go_on(world, 60.0)
    grown = {member.health.every_s for member in members(world)}
    for peer in newcomers:
        world.drain(peer)
    for stage in (0, 1, 2):
        world.drain(world.live(stage)[0])
    go_on(world, 120.0)
    assert min(grown) > 6.0 and len(members(world)) == 9
    assert all(why.endswith(HAS_LEFT) for why in world.disk.fenced), world.disk.fenced
    world.check()


def test_who_is_killed_is_done_without_at_once() -> None:
    world = crowd()
    world.kill(PeerId(VICTIM))
    assert seconds_until_fenced(world, VICTIM, 10.0) < 1.0


@pytest.mark.parametrize("what", [*HANGS, "process"])
def test_who_stands_still_is_found_out_long_before_its_beacons_are_late(what: str) -> None:
    """They would be given up for their silence after two minutes."""
    world = crowd()
    if what == "process":
        world.pause(PeerId(VICTIM), 10_000.0)
    else:
        world.peers[PeerId(VICTIM)].habit = HANGS[what]
    assert seconds_until_fenced(world, VICTIM, 20.0) < 20.0
    go_on(world, 30.0)
    assert {why.split(": ")[0] for why in world.disk.fenced} == {f"stage 1, {VICTIM}"}


def test_a_trainer_that_comes_again_goes_on_with_those_whose_beacons_are_rare() -> None:
    world = crowd()
    version = world.disk.steps[-1].version
    world.kill_trainer()
    world.clock.after(5.0, world.resume_trainer)
    go_on(world, 60.0)
    assert not world.disk.rollbacks and world.disk.steps[-1].version > version + 3
    assert all(member.health.every_s > 10.0 for member in members(world))
    assert not world.disk.recoveries["fenced"], world.disk.fenced
