"""Stories of simulated swarms: who, what, when, and how it has to end."""

from __future__ import annotations

import itertools
import statistics

from swarmrt.sim.engine.links import Link, Sizes
from swarmrt.sim.swarm.world import TRAINER, World


def gaps(times: list[float]) -> list[float]:
    """Return what is between one commit and the next."""
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def versions(world: World) -> list[int]:
    return [report.version for report in world.disk.steps]


def test_a_checkpoint_that_takes_ten_minutes_to_write_delays_no_commit() -> None:
    """A newcomer comes meanwhile, and gets its state as well."""
    world = World((2, 2), seed=6, steps=200, microbatches=4, eval_every=0, checkpoint_every=5,
                  service_s=(1.0, 1.0))  # fmt: skip
    world.run_until(4)
    world.trainer.hang_saving(600.0)
    until = world.clock.now + 600.0
    world.run_until(20)
    newcomer = world.spawn(1)
    world.run()
    times = [at for at in world.disk.committed_at if at < until]
    assert len(times) > 60 and max(gaps(times)) < 3 * statistics.median(gaps(times))
    assert len(world.peers[newcomer].history) == 200
    assert not world.disk.recoveries["fenced"] and not world.disk.rollbacks
    assert sorted(world.disk.checkpoints)[0] == 5 and 200 in world.disk.checkpoints
    assert not [version for version in world.disk.checkpoints if 5 < version < len(times)]


def test_newcomers_do_not_take_the_copies_of_a_checkpoint_that_takes_a_minute_to_collect() -> None:
    """Each of them would have a copy made, and replicas keep two: the older ones go first."""
    sizes = Sizes(state_bytes=80_000_000, gradient_bytes=1000, activation_bytes=1000)
    world = World((1, 1), seed=6, steps=60, microbatches=2, eval_every=0, checkpoint_every=5,
                  service_s=(0.1, 0.1), sizes=sizes,
                  links={TRAINER: Link(down_bytes_per_s=2.5e6)})  # fmt: skip
    for version in (7, 12, 17):
        world.run_until(version)
        world.spawn(1)
    world.run_until(30)
    assert not world.disk.checkpoints, "it is still being collected"
    world.run()
    assert sorted(world.disk.checkpoints)[0] == 5 and 60 in world.disk.checkpoints


def test_a_disk_that_hangs_until_the_end_still_gets_the_last_version() -> None:
    world = World((1, 1), seed=6, steps=10, microbatches=4, eval_every=0, checkpoint_every=1)
    world.run_until(4)
    world.trainer.hang_saving(100.0)
    world.run()
    assert versions(world) == list(range(1, 11)) and 10 in world.disk.checkpoints


def test_who_hangs_and_is_then_alone_gets_its_state_once_it_moves_again() -> None:
    """Its thread holds old work while it loads: no reason to begin its load again and again."""
    sizes = Sizes(state_bytes=250_000_000, gradient_bytes=100_000, activation_bytes=1000)
    world = World((2, 1), seed=7, steps=60, microbatches=4, eval_every=0, checkpoint_every=1,
                  service_s=(0.05, 0.05), sizes=sizes)  # fmt: skip
    hung, other = world.live(0)
    world.run_until(20)
    world.hang(hung, "compute", 60.0)
    moves_again_at = world.clock.now + 60.0
    world.run_until(25)
    assert world.disk.recoveries["fenced"]
    world.kill(other)
    world.run(limit_s=moves_again_at + 60.0)
    assert versions(world)[-1] == 60 and world.disk.recoveries["fenced"] < 20
