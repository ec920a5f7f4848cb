"""Stopping and resuming in the simulator: nothing that is there is lost, whenever it happens."""

from __future__ import annotations

import pytest

from swarmrt.scheduler.events import StopRequested
from swarmrt.sim.swarm.world import World


def world(seed: int, steps: int) -> World:
    return World((2, 2), seed=seed, steps=steps, microbatches=4, eval_every=0, checkpoint_every=0)


def let_pass(world: World, seconds: float) -> None:
    until = world.clock.now + seconds
    while world.clock.now < until and world.clock.step():
        pass


def held(world: World) -> list[int]:
    """The version that each live peer holds."""
    return [len(world.peers[peer].history) for s in (0, 1) for peer in world.live(s)]


def resume(world: World) -> None:
    """Start another trainer, when the one that was stopped is gone."""
    world.kill_trainer()
    world.trainer.stopped = None
    world.resume_trainer()


def versions(world: World) -> list[int]:
    return [report.version for report in world.disk.steps]


def test_a_trainer_that_dies_between_the_last_update_and_its_checkpoint_goes_on_there() -> None:
    swarm = world(seed=2, steps=10)
    swarm.run_until(10)
    swarm.kill_trainer()
    let_pass(swarm, 5.0)
    assert held(swarm) == [10] * 4 and not swarm.disk.checkpoints
    resume(swarm)
    swarm.run()
    assert versions(swarm) == list(range(1, 11)), "nothing is done twice"
    assert [report.version for report in swarm.disk.evaluations] == [10]
    assert list(swarm.disk.checkpoints) == [10]
    let_pass(swarm, 5.0)
    assert held(swarm) == [], "all is saved, so they may go"


def test_a_stop_while_a_resumed_trainer_hails_leaves_the_peers_with_what_they_hold() -> None:
    swarm = world(seed=3, steps=30)
    swarm.run_until(5)
    swarm.kill_trainer()
    swarm.resume_trainer()
    swarm.trainer.process.feed(StopRequested("SIGINT received"))
    let_pass(swarm, 60.0)
    assert swarm.trainer.stopped is not None and held(swarm) == [5] * 4
    resume(swarm)
    swarm.run()
    assert versions(swarm) == list(range(1, 31))


@pytest.mark.parametrize("after_s", [0.0, 0.4, 1.1])
def test_a_second_stop_ends_the_trainer_and_not_what_the_peers_hold(after_s: float) -> None:
    swarm = world(seed=4, steps=30)
    swarm.run_until(7)
    swarm.trainer.process.feed(StopRequested("SIGINT received"))
    let_pass(swarm, after_s)
    swarm.trainer.process.feed(StopRequested("SIGINT received"))
    assert swarm.trainer.stopped is not None and not swarm.disk.checkpoints
    let_pass(swarm, 60.0)
    assert held(swarm) == [max(held(swarm))] * 4 and max(held(swarm)) >= 7
    resume(swarm)
    swarm.run()
    assert versions(swarm)[-1] == 30 and not swarm.disk.rollbacks


def test_a_stop_while_a_stage_is_bare_leaves_the_others_as_they_are() -> None:
    swarm = world(seed=5, steps=30)
    swarm.run_until(3)
    for peer in list(swarm.live(1)):
        swarm.kill(peer)
    let_pass(swarm, 20.0)
    swarm.trainer.process.feed(StopRequested("SIGINT received"))
    let_pass(swarm, 20.0)
    assert swarm.trainer.stopped is not None and len(held(swarm)) == 2


def test_a_run_that_has_not_begun_sends_its_peers_home() -> None:
    swarm = world(seed=6, steps=30)
    for peer in list(swarm.live(1)):
        swarm.kill(peer)
    let_pass(swarm, 5.0)
    swarm.trainer.process.feed(StopRequested("SIGINT received"))
    let_pass(swarm, 20.0)
    assert held(swarm) == []


@pytest.mark.parametrize(("full_s", "is_saved"), [(300.0, True), (3600.0, False)])
def test_the_last_checkpoint_waits_for_room_on_the_disk(full_s: float, is_saved: bool) -> None:
    """And not without end: then the peers keep what they hold."""
    swarm = world(seed=4, steps=5)
    swarm.run_until(4)
    swarm.trainer.fill_disk(full_s)
    let_pass(swarm, 60.0)
    assert versions(swarm) == [1, 2, 3, 4, 5] and not swarm.disk.checkpoints
    assert swarm.trainer.process.alive, "somebody may make room"
    let_pass(swarm, 1000.0)
    stop = swarm.trainer.stopped
    assert stop is not None and stop.error is not is_saved, stop
    assert list(swarm.disk.checkpoints) == ([5] if is_saved else [])
    assert held(swarm) == ([] if is_saved else [5] * 4)


def test_a_checkpoint_that_takes_long_holds_nobody_up_and_is_not_queued_behind() -> None:
    """Every version is due, and writing one takes as long as several steps."""
    swarm = World((2, 2), seed=7, steps=20, microbatches=4, eval_every=0, checkpoint_every=1)
    swarm.trainer.hang_saving(12.0)
    swarm.run()
    saved = sorted(swarm.disk.checkpoints)
    assert versions(swarm) == list(range(1, 21)) and saved[-1] == 20
    assert 2 <= len(saved) < 20
    ends = [later - sooner for sooner, later in zip(saved, saved[1:], strict=False)]
    assert max(ends) > 1


@pytest.mark.parametrize("seed", range(1, 4))
def test_nothing_is_expected_any_more_of_a_step_that_a_stop_drops(seed: int) -> None:
    """Found in a real swarm: the step after the last one was under way, as steps overlap, and a
    receipt of it was overdue while the checkpoint was written."""
    swarm = World((2, 2), seed, steps=50, microbatches=8, staleness=1, eval_every=0)
    swarm.run_until(3)
    swarm.trainer.hang_saving(60.0)
    swarm.trainer.process.feed(StopRequested("SIGTERM received"))
    swarm.run()
    assert max(swarm.disk.checkpoints) >= 4
