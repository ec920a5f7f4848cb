"""Stories of owners who take their devices for a while, in virtual time: no commit is lost."""

from __future__ import annotations

from functools import partial

import pytest

from swarmrt.ids import PeerId
from swarmrt.scheduler.events import PauseRequested
from swarmrt.scheduler.instructions import FreeDevice
from swarmrt.scheduler.timing.times import BEACON_S
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.sim.swarm.world import World

ONE, OTHER = PeerId("s1p0"), PeerId("s1p1")
SERVICE_S = 0.1
STEPS = 10


def swarm(replicas: tuple[int, ...], seed: int, **how: object) -> World:
    """Return a swarm with three versions committed."""
    world = World(replicas, seed, steps=STEPS, service_s=(SERVICE_S, SERVICE_S), **how)  # type: ignore[arg-type]
    world.run_until(3)
    return world


def finish(world: World) -> None:
    """Run to the end, without any loss of what was committed."""
    world.run()
    assert not world.disk.rollbacks
    assert [report.version for report in world.disk.steps] == list(range(1, STEPS + 1))


def commits_of(world: World, peer: PeerId) -> list[int]:
    """Return the versions that it has made with the others."""
    return [
        report.version
        for report in world.disk.steps
        if any(peer == member for stage in report.digests for member, _ in stage)
    ]


def freed_after_s(world: World, peer: PeerId) -> float:
    """Return how long the owner waited for the device."""
    history = world.peers[peer].process.history
    asked_at = next(r.now for r in history if isinstance(r.event, PauseRequested))
    freed = (r.now for r in history if any(isinstance(i, FreeDevice) for i in r.instructions))
    return next(freed) - asked_at


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_others_go_on_and_it_serves_again_once_it_is_lent(seed: int, staleness: int) -> None:
    world = swarm((2, 2), seed, staleness=staleness)
    world.clock.after(seed / 3, lambda: world.take_device(ONE, 4.0))
    finish(world)
    assert not world.disk.pauses
    assert world.disk.recoveries["fenced"] == 1
    made = commits_of(world, ONE)
    missed = set(range(made[0], STEPS + 1)) - set(made)
    assert missed and made[-1] > max(missed), f"it made {made}"


@pytest.mark.parametrize("seed", range(4))
def test_device_is_free_once_one_computation_is_over(seed: int) -> None:
    world = swarm((2, 2), seed)
    world.clock.after(seed / 4, lambda: world.take_device(ONE, 4.0))
    finish(world)
    assert freed_after_s(world, ONE) <= 1.2 * 2 * SERVICE_S  # a backward, at its slowest


@pytest.mark.parametrize("averaging", [None, {"strategy": "async", "local_batch": 2}])
@pytest.mark.parametrize("seed", range(6))
def test_a_lone_replica_goes_on_with_what_it_has_wherever_in_a_step(
    seed: int, averaging: dict[str, object] | None
) -> None:
    """Nobody goes back, though between two commits it may be the only one that can make the next
    version."""
    world = swarm((2, 1), seed, averaging=averaging)
    world.clock.after(seed / 3, lambda: world.take_device(ONE, 40.0))
    finish(world)
    assert world.disk.pauses


def test_asked_gently_it_goes_once_a_version_is_made() -> None:
    """What it has done of the step counts, and little is done again."""
    void = 0
    for seed in range(3):
        world = swarm((2, 2), seed)
        world.clock.after(seed / 3, partial(world.take_device, ONE, 4.0, gently=True))
        finish(world)
        made = commits_of(world, ONE)
        assert set(range(made[0], STEPS + 1)) - set(made)
        void += world.disk.recoveries["recovered"]
    assert void == 0


def test_a_spare_takes_its_place() -> None:
    world = World((2, 1), 1, spares=(0, 1), steps=STEPS, service_s=(SERVICE_S, SERVICE_S))
    world.run_until(3)
    world.take_device(ONE, 60.0)
    finish(world)
    assert OTHER in world.spares_let_in()


def test_a_trainer_that_comes_back_meanwhile_waits_for_its_owner() -> None:
    world = swarm((2, 1), 5)
    world.take_device(ONE, 30.0)
    world.clock.after(2.0, world.kill_trainer)
    world.clock.after(4.0, world.resume_trainer)
    finish(world)


def test_it_is_done_without_by_the_next_beacon() -> None:
    world = swarm((2, 2), 2)
    core = world.trainer.process.core
    assert isinstance(core, TrainerCore)
    world.take_device(ONE, 10.0)
    until = world.clock.now + 2 * BEACON_S
    while world.clock.now < until:
        world.clock.step()
    assert core.run.members.ready(1) == (OTHER,)
    member = core.run.members.get(ONE)
    assert member is not None and member.is_paused
    finish(world)
