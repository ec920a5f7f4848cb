"""Stories of spares, in virtual time: they take over, and no commit is lost."""

from __future__ import annotations

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Apply
from swarmrt.scheduler.events import PeerLost, Received
from swarmrt.scheduler.instructions import RunForward
from swarmrt.scheduler.timing.times import BEACON_S
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.sim.engine.links import Link, Sizes
from swarmrt.sim.swarm.world import World

LONE, SPARE = PeerId("s1p0"), PeerId("s1p1")
SERVICE_S = 0.1


def swarm_with_spare(seed: int, version: int = 3, **how: object) -> World:
    """Stage 1 has one replica and one spare, and that version is committed."""
    world = World((2, 1), seed, spares=(0, 1), steps=8, service_s=(SERVICE_S, SERVICE_S), **how)  # type: ignore[arg-type]
    world.run_until(version)
    return world


def first_forward_at(world: World, peer: PeerId) -> float:
    """Return when a peer first computed anything."""
    return next(
        record.now
        for record in world.peers[peer].process.history
        if any(isinstance(instruction, RunForward) for instruction in record.instructions)
    )


def heard_of_loss_at(world: World) -> float:
    """Return when the link to the killed replica broke at the trainer."""
    return next(r.now for r in world.trainer.process.history if isinstance(r.event, PeerLost))


def core_of(world: World) -> TrainerCore:
    core = world.trainer.process.core
    assert isinstance(core, TrainerCore)
    return core


def finish(world: World) -> None:
    """Run to the end, without any loss of what was committed."""
    world.run()
    assert not world.disk.rollbacks and not world.disk.pauses
    assert [report.version for report in world.disk.steps] == list(range(1, 9))


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("seed", range(8))
def test_it_takes_over_from_the_only_replica_wherever_in_a_step_that_dies(
    seed: int, staleness: int
) -> None:
    world = swarm_with_spare(seed, staleness=staleness)
    world.clock.after(seed / 6, lambda: world.kill(LONE))
    finish(world)
    assert SPARE in dict(world.disk.steps[-1].digests[1])


@pytest.mark.parametrize("seed", range(4))
def test_its_first_microbatch_follows_within_a_beacon(seed: int) -> None:
    world = swarm_with_spare(seed)
    run = core_of(world).run
    while run.commit is not None or run.books.advanced < 6:
        world.clock.step()
    world.kill(LONE)
    finish(world)
    assert first_forward_at(world, SPARE) - heard_of_loss_at(world) < BEACON_S


@pytest.mark.parametrize("seed", range(4))
def test_it_takes_over_from_one_that_stands_still(seed: int) -> None:
    world = swarm_with_spare(seed)
    world.pause(LONE, 30.0)
    world.run()
    assert not world.disk.rollbacks
    assert SPARE in dict(world.disk.steps[-1].digests[1])


@pytest.mark.parametrize("seed", range(4))
def test_it_takes_over_where_owners_update(seed: int) -> None:
    world = swarm_with_spare(seed, by_owners=True, rounding_of=lambda p: p * (p == SPARE))
    world.clock.after(seed / 3, lambda: world.kill(LONE))
    finish(world)
    assert SPARE in world.spares_let_in()


def test_it_says_again_that_it_is_one_when_the_trainer_has_restarted() -> None:
    world = swarm_with_spare(seed=1)
    world.kill_trainer()
    world.clock.after(1.0, world.resume_trainer)
    world.run()
    assert not world.disk.rollbacks and not world.spares_let_in()
    assert world.peers[SPARE].history == world.peers[LONE].history


def test_it_goes_on_alone_with_a_trainer_that_has_restarted() -> None:
    world = swarm_with_spare(seed=1)
    world.kill_trainer()
    world.kill(LONE)
    world.clock.after(1.0, world.resume_trainer)
    world.run()
    assert not world.disk.rollbacks and world.spares_let_in() == {SPARE}


def test_the_only_replica_drains_when_there_is_a_spare() -> None:
    world = swarm_with_spare(seed=2)
    world.drain(LONE)
    finish(world)
    assert world.peers[LONE].stopped is not None and world.spares_let_in() == {SPARE}


def test_a_spare_that_is_told_to_stop_stops_at_once() -> None:
    world = swarm_with_spare(seed=2)
    world.drain(SPARE)
    asked_at = world.clock.now
    while world.peers[SPARE].stopped is None:
        world.clock.step()
    assert world.clock.now - asked_at < BEACON_S
    finish(world)


def test_one_with_a_slow_link_is_left_out_and_holds_nobody_up() -> None:
    """A spare's gradients take 5 s, and steps of the others less than 2 s."""
    sizes = Sizes(state_bytes=3_000_000, gradient_bytes=1_000_000, activation_bytes=1000)
    slow = Link(up_bytes_per_s=2e5, down_bytes_per_s=2e5, latency_s=0.02)
    world = World((1, 1), 3, spares=(0, 1), steps=40, service_s=(SERVICE_S, SERVICE_S),
                  sizes=sizes, links={SPARE: slow})  # fmt: skip
    world.run()
    told = world.peers[SPARE].left_out
    assert told and not world.spares_let_in()
    assert max(report.seconds for report in world.disk.steps[5:]) < 3.0


HOME = Link(up_bytes_per_s=2.5e6, down_bytes_per_s=2.5e6, latency_s=0.025)


def has_been_told_to_apply(world: World, peer: PeerId, step: int) -> bool:
    words = (
        r.event.message for r in world.peers[peer].process.history if type(r.event) is Received
    )
    return any(type(word) is Apply and word.step == step for word in words)


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("by_owners", [False, True])
def test_no_version_is_lost_with_the_only_replica_that_has_just_been_told_to_apply(
    by_owners: bool, staleness: int
) -> None:
    """What a step gives it takes 0.4 s to the spare: it has that before anybody makes the
    version."""
    sizes = Sizes(state_bytes=1_000_000, gradient_bytes=1_000_000 if not by_owners else 300_000,
                  activation_bytes=1000)  # fmt: skip
    for seed in range(4):
        world = swarm_with_spare(seed, sizes=sizes, links={SPARE: HOME}, by_owners=by_owners,
                                 staleness=staleness, checkpoint_every=0)  # fmt: skip
        while not has_been_told_to_apply(world, LONE, step=5):
            world.clock.step()
        world.kill(LONE)
        finish(world)
        assert world.spares_let_in() == {SPARE}


def watch_holds(world: World) -> dict[int, float]:
    """Return by step how long its Apply is held, as it happens."""
    held: dict[int, float] = {}

    def look() -> None:
        round_ = core_of(world).run.round
        if round_ is not None and round_.held_at is not None:
            held[round_.step] = world.trainer.process.now - round_.held_at

    world.at_event = look
    return held


SIZES = Sizes(state_bytes=1_000_000, gradient_bytes=1_000_000, activation_bytes=1000)


def test_apply_is_held_for_one_that_hangs_for_half_a_step_and_ever_more_seldom() -> None:
    for seed in range(2):
        world = swarm_with_spare(seed, sizes=SIZES, links={SPARE: HOME})
        core_of(world).run.last_version = 30
        held = watch_holds(world)
        world.hang(SPARE, "reduce", 1000.0)
        world.run()
        assert held and len(held) <= 6, held
        assert max(held.values()) <= core_of(world).run.pace.step_time.mean_s / 2 + 0.1


def test_no_apply_is_held_where_two_replicas_have_the_version() -> None:
    for seed in range(2):
        world = World((1, 2), seed, spares=(0, 1), steps=8, service_s=(SERVICE_S, SERVICE_S),
                      sizes=SIZES, links={PeerId("s1p2"): HOME})  # fmt: skip
        held = watch_holds(world)
        world.run()
        assert not held and world.peers[PeerId("s1p2")].history
