"""Stories of simulated swarms: who, what, when, and how it has to end."""

from __future__ import annotations

from swarmrt.scheduler.events import StopRequested
from swarmrt.sim.world import World


def versions(world: World) -> list[int]:
    return [report.version for report in world.disk.steps]


def test_a_run_that_had_done_its_last_step_repeats_nothing_when_it_is_resumed() -> None:
    """The trainer is killed after the last update, and before its checkpoint."""
    world = World((2, 2), seed=2, steps=10, microbatches=4, eval_every=0, checkpoint_every=0)
    world.run_until(10)
    assert not world.disk.checkpoints
    world.kill_trainer()
    for _ in range(200):
        world.clock.step()
    world.resume_trainer()
    world.run()
    assert versions(world) == list(range(1, 11)) and 10 in world.disk.checkpoints


def test_ctrl_c_while_a_resumed_trainer_hails_leaves_the_peers_what_they_hold() -> None:
    world = World((2, 2), seed=3, steps=30, microbatches=4, eval_every=0, checkpoint_every=0)
    world.run_until(5)
    world.kill_trainer()
    world.resume_trainer()
    world.trainer.process.feed(StopRequested("ctrl-c"))
    for _ in range(3000):
        if not world.clock.step():
            break
    saved = max(world.disk.checkpoints, default=0)
    assert world.trainer.stopped is not None
    for stage in (0, 1):
        held = max((len(world.peers[peer].history) for peer in world.live(stage)), default=0)
        assert max(held, saved) >= 5
