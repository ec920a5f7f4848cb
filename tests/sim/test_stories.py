"""Stories of simulated swarms: who, what, when, and how it has to end."""

from __future__ import annotations

import itertools
import statistics

import pytest

from swarmrt.ids import PeerId
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


def behind(bytes_per_s: float, replicas: tuple[int, ...], service_s: float) -> World:
    """Return a swarm whose trainer is about to collect a checkpoint that takes it minutes."""
    sizes = Sizes(state_bytes=30_000_000, gradient_bytes=1_000_000, activation_bytes=10_000)
    home = Link(up_bytes_per_s=bytes_per_s, down_bytes_per_s=bytes_per_s, latency_s=0.02)
    world = World(replicas, seed=1, steps=10**6, eval_every=0, checkpoint_every=5,
                  service_s=(service_s, service_s), sizes=sizes, links={TRAINER: home})  # fmt: skip
    world.run_until(4)
    return world


@pytest.mark.parametrize("replicas", [(1, 2), (3, 3), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("service_s", [0.015, 0.15])
def test_a_trainer_behind_two_megabits_that_collects_a_checkpoint_fences_nobody(
    replicas: tuple[int, ...], service_s: float
) -> None:
    """What it hears waits for a frame of state, a second each: that is its own link's. It gets one
    chunk at a time, so commits take a few words longer."""
    world = behind(0.25e6, replicas, service_s)
    until = world.clock.now + 100.0
    before = max(gaps(world.disk.committed_at))
    while world.clock.now < until:
        world.clock.step()
    assert not world.disk.fenced, world.disk.fenced
    assert not world.disk.checkpoints, "it is still being collected"
    assert max(gaps(world.disk.committed_at)) < before + 4.0


def test_a_trainer_behind_half_a_megabit_knows_that_what_it_hears_is_late() -> None:
    """A frame of state takes four seconds: longer than silence is suffered."""
    world = behind(62_500.0, (1, 2), 0.15)
    until = world.clock.now + 150.0
    while world.clock.now < until:
        world.clock.step()
    assert not world.disk.fenced, world.disk.fenced
    assert max(gaps(world.disk.committed_at)) < 20.0


def test_who_hangs_while_the_trainers_link_is_full_is_found_out() -> None:
    world = behind(0.25e6, (2, 2), 0.15)
    world.run_until(8)
    world.hang(PeerId("s1p0"), "compute", 1000.0)
    hung_at, versions_then = world.clock.now, len(world.disk.steps)
    while world.clock.now < hung_at + 60.0:
        world.clock.step()
    assert len(world.disk.fenced) == 1 and all("s1p0" in why for why in world.disk.fenced)
    assert len(world.disk.steps) > versions_then + 5 and not world.disk.checkpoints


def test_newcomers_do_not_take_the_copies_of_a_checkpoint_that_takes_a_minute_to_collect() -> None:
    """Each of them would have a copy made, and replicas keep two: the older ones go first."""
    sizes = Sizes(state_bytes=80_000_000, gradient_bytes=1000, activation_bytes=1000)
    world = World((1, 1), seed=6, steps=80, microbatches=2, eval_every=0, checkpoint_every=5,
                  service_s=(0.1, 0.1), sizes=sizes,
                  links={TRAINER: Link(down_bytes_per_s=2.5e6)})  # fmt: skip
    for version in (7, 12, 17):
        world.run_until(version)
        world.spawn(1)
    world.run_until(30)
    assert not world.disk.checkpoints, "it is still being collected"
    world.run()
    assert sorted(world.disk.checkpoints)[0] == 5 and 80 in world.disk.checkpoints


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
