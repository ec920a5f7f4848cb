"""Microbatches that kill whoever computes them, in simulated swarms: when that ends the run, and
that other deaths do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from swarmrt.errors import RunError
from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Ending
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.sim.swarm.world import TRAINER, World

POISON = MicrobatchId(3, 2)


def poison(
    world: World, act: Callable[[PeerId], None], spared: PeerId | None = None
) -> list[PeerId]:
    """Have every peer of stage 1 but one, those that come later too, do this when it computes the
    microbatch. Returns who has, as it happens."""
    died: list[PeerId] = []

    def fails(peer: PeerId, microbatch: MicrobatchId) -> bool:
        if microbatch == POISON and peer not in died:
            died.append(peer)
            act(peer)
        return microbatch == POISON

    def arm() -> None:
        for name, peer in world.peers.items():
            if peer.settings.stage == 1 and name != spared:
                peer.computing.fails = lambda what, mb, name=name: fails(name, mb)  # type: ignore[misc]

    world.at_event = arm
    return died


def ends(world: World, with_memory_at_fault: bool = False) -> Callable[[PeerId], None]:
    """Let a peer say in which microbatch it ends, and then be gone."""

    def end(peer: PeerId) -> None:
        which = () if with_memory_at_fault else (POISON,)
        ending = Ending("forward failed: device-side assert", *which)
        world.network.send(peer, TRAINER, ending, None)
        world.clock.after(0.2, lambda: world.kill(peer))

    return end


def keep_coming(world: World, stage: int, every_s: float) -> list[PeerId]:
    """Let a volunteer come for the stage whenever nobody serves it."""
    came: list[PeerId] = []

    def look() -> None:
        if world.trainer.stopped is None:
            if not world.live(stage) and len(came) < 20:
                came.append(world.spawn(stage))
            world.clock.after(every_s, look)

    look()
    return came


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("replicas", [[1, 3, 1], [2, 2, 2]], ids=str)
def test_second_replica_that_ends_in_one_microbatch_ends_the_run(
    replicas: list[int], staleness: int
) -> None:
    for seed in range(4):
        world = World(replicas, seed, steps=6, staleness=staleness)
        died = poison(world, ends(world))
        with pytest.raises(RunError, match=r"microbatch 3\.2 at stage 1 has ended .*device-side"):
            world.run(limit_s=600)
        assert len(died) == 2 and len(world.disk.steps) <= 3
        assert world.trainer.stopped is not None
        assert world.trainer.stopped.microbatches == (POISON,)
        assert all(peer in world.trainer.stopped.reason for peer in died)


def test_replica_that_ends_in_what_another_one_computes_ends_nothing() -> None:
    for seed in range(4):
        world = World([1, 2, 1], seed, steps=6)
        spared = world.live(1)[0]
        died = poison(world, ends(world), spared=spared)
        world.run(limit_s=600)
        assert len(world.disk.steps) == 6 and len(died) <= 1


@pytest.mark.parametrize("every_s", [0.5, 5.0])
def test_volunteers_that_are_killed_in_turn_without_a_word_end_the_run(every_s: float) -> None:
    """The first one, and two that come after it and do no more than it did."""
    for seed in range(4):
        world = World([1, 1, 1], seed, steps=6, checkpoint_every=1)
        died = poison(world, world.kill)
        keep_coming(world, 1, every_s)
        with pytest.raises(RunError, match=r"of stage 1 were lost one after the other"):
            world.run(limit_s=3600)
        assert world.trainer.stopped is not None
        assert POISON in world.trainer.stopped.microbatches
        assert len(died) <= 8, "each may have done a little more than the one before"


def test_run_whose_checkpoint_is_old_is_ended_too() -> None:
    """The steps since then are done again by each volunteer, which counts for nothing."""
    for seed in range(3):
        world = World([1, 1], seed, steps=6, checkpoint_every=2)
        died = poison(world, world.kill)
        keep_coming(world, 1, 1.0)
        with pytest.raises(RunError, match=r"lost one after the other"):
            world.run(limit_s=3600)
        assert 3 <= len(died) <= 6


@pytest.mark.parametrize("staleness", [0, 1])
def test_all_replicas_of_a_stage_that_are_killed_at_once_end_nothing(staleness: int) -> None:
    for seed in range(6):
        world = World([2, 5, 2], seed, steps=6, staleness=staleness)
        world.run_until(2)
        for number, peer in enumerate(world.live(1)):
            world.clock.after(0.05 * number, partial(world.kill, peer))
        keep_coming(world, 1, 1.0)
        world.run(limit_s=3600)
        assert max(report.version for report in world.disk.steps) == 6


def test_replicas_that_run_out_of_memory_one_after_the_other_end_nothing() -> None:
    """All microbatches are of one size: another machine may have more."""
    for seed in range(3):
        world = World([1, 1], seed, steps=6, checkpoint_every=1)
        died = poison(world, ends(world, with_memory_at_fault=True))
        came = keep_coming(world, 1, 1.0)
        arm = world.at_event

        def relent(world: World = world, came: list[PeerId] = came, arm: Any = arm) -> None:
            """Let the sixth one have enough."""
            arm()
            if len(came) > 5:
                world.at_event = lambda: None
                for peer in world.peers.values():
                    peer.computing.fails = lambda what, mb: False

        world.at_event = relent
        world.run(limit_s=3600)
        assert len(died) >= 5 and max(report.version for report in world.disk.steps) == 6


@dataclass
class Strikes:
    """Do something to the replicas of these stages as soon as they are let in and have work, again
    and again: nothing more is done meanwhile, and each has the same microbatches to compute."""

    world: World
    acts: list[tuple[int, Callable[[], object]]]  # at a version, one after the other
    stages: tuple[int, ...]
    struck_at: float = 0.0

    def __post_init__(self) -> None:
        self.world.run_until(1)
        self.world.at_event = self.look

    def look(self) -> None:
        """Do the next thing, once all that the last one has ended is replaced."""
        core, now = self.world.trainer.process.core, self.world.trainer.process.now
        assert isinstance(core, TrainerCore)
        run = core.run
        if not self.acts or self.acts[0][0] != run.version:
            return
        for stage in self.stages:
            members = run.members.of_stage(stage, Membership.READY)
            if not any(m.ready_at > self.struck_at and run.may_be_computed_by(m) for m in members):
                return
        self.struck_at = now + 0.5  # links are broken by then
        self.acts.pop(0)[1]()

    def end_nothing(self) -> None:
        """Run to the end, and see that all happened, and nothing is missing."""
        self.world.run(limit_s=3600)
        assert not self.acts
        assert max(report.version for report in self.world.disk.steps) == self.world.steps


def power_cut(world: World, *stages: int) -> None:
    for stage in stages:
        for peer in world.live(stage):
            world.kill(peer)


def cut_off(world: World, stage: int, seconds: float) -> None:
    for peer in world.live(stage):
        world.network.cut(peer, TRAINER, seconds)


@pytest.mark.parametrize("staleness", [0, 1])
def test_power_cuts_one_after_the_other_end_nothing(staleness: int) -> None:
    """They take both stages, and again as soon as somebody serves them: no microbatch does that."""
    for seed in range(4):
        world = World([1, 1], seed, checkpoint_every=1, eval_every=0, staleness=staleness)
        strikes = Strikes(world, [(2, partial(power_cut, world, 0, 1))] * 4, stages=(0, 1))
        for stage in strikes.stages:
            keep_coming(world, stage, 1.0)
        strikes.end_nothing()


def test_two_deaths_and_a_cut_end_nothing() -> None:
    """A peer that was only cut off comes back, and has not been killed by what it computed. Steps
    are so long that nobody gets further before it is judged."""
    for seed in range(4):
        world = World([1, 1], seed, checkpoint_every=1, eval_every=0, service_s=(6.0, 7.0))
        death, cut = partial(power_cut, world, 0), partial(cut_off, world, 0, 3.0)
        later = partial(world.clock.after, 8.0, cut)  # when it has done something
        strikes = Strikes(world, [(2, death), (2, death), (2, later)], stages=(0,))
        keep_coming(world, 0, 1.0)
        strikes.end_nothing()


def test_deaths_between_which_one_came_in_an_earlier_step_end_nothing() -> None:
    """The death in an earlier step was not by a microbatch of the later one, so the others need
    not have been."""
    for seed in range(4):
        world = World([1, 1], seed, checkpoint_every=0, eval_every=0)
        death = partial(power_cut, world, 1)
        strikes = Strikes(world, [(2, death), (1, death), (2, death), (2, death)], stages=(1,))
        keep_coming(world, 1, 1.0)
        strikes.end_nothing()
