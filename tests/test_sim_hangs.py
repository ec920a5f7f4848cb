"""Whatever hangs is found out, though its process still beacons, and the others go on without it.

A thread that hangs takes what it is given, and nothing ever comes of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from swarmrt.ids import PeerId
from swarmrt.messages import Beacon, Message, Part
from swarmrt.scheduler.instructions import (
    ClearGradients,
    CombineParts,
    Instruction,
    RunBackward,
    RunForward,
    RunWeightGradients,
    StepOptimizer,
    SumPart,
)
from swarmrt.sim.dishonest import Habit
from swarmrt.sim.world import World


def _no_slices(message: Message) -> Iterable[Message]:
    """Slices are encoded on the thread of the reduce."""
    return () if isinstance(message, Part) else (message,)


def _hangs(*what: type[Instruction]) -> Habit:
    return Habit(leaves_out=what)


HANGS = {
    "compute": _hangs(RunForward, RunBackward, RunWeightGradients, StepOptimizer, ClearGradients),
    "backward": _hangs(RunBackward, RunWeightGradients, StepOptimizer, ClearGradients),
    "weights": _hangs(RunWeightGradients, StepOptimizer, ClearGradients),
    "sums": _hangs(SumPart, CombineParts),
    "slices and sums": Habit(says=_no_slices, leaves_out=(SumPart, CombineParts)),
    "combining": _hangs(CombineParts),
    "update": _hangs(StepOptimizer),
}
FOUND_S = 20.0  # twice the deadline of a silence, and a round or computation that is late twice


VICTIMS = [((2, 2), "s1p0", 1), ((2, 2), "s0p1", 2), ((3, 1), "s0p2", 3)]


def swarm_in_which(victim: str, habit: Habit, replicas: tuple[int, ...], seed: int) -> World:
    """Return a swarm at step 10, in which this peer's thread hangs from now on."""
    world = World(replicas, seed, steps=30, microbatches=6, eval_every=0, checkpoint_every=0,
                  service_s=(0.05, 0.1))  # fmt: skip
    world.run_until(10)
    world.peers[PeerId(victim)].habit = habit
    return world


def seconds_until_fenced(world: World, victim: str, limit_s: float) -> float:
    began_at = world.clock.now
    while not any(victim in why for why in world.disk.fenced):
        assert world.clock.now < began_at + limit_s, world.disk.fenced
        world.clock.step()
    return world.clock.now - began_at


def fenced(world: World) -> set[str]:
    return {reason.split(": ")[0].split(", ")[1] for reason in world.disk.fenced}


@pytest.mark.parametrize("what", HANGS)
@pytest.mark.parametrize(("replicas", "victim", "seed"), VICTIMS)
def test_hang_is_found_out_and_the_others_go_on(
    what: str, replicas: tuple[int, ...], victim: str, seed: int
) -> None:
    world = swarm_in_which(victim, HANGS[what], replicas, seed)
    assert seconds_until_fenced(world, victim, 30.0) < FOUND_S
    world.run(limit_s=600.0)
    assert fenced(world) == {victim}, world.disk.fenced
    assert [report.version for report in world.disk.steps] == list(range(1, 31))


def _keeps_it_to_itself(message: Message) -> Iterable[Message]:
    match message:
        case Part():
            return ()
        case Beacon():
            return (replace(message, waits_for=PeerId("")),)
    return (message,)


@pytest.mark.parametrize(("replicas", "victim", "seed"), [((2, 2), "s1p0", 1), ((2, 2), "s0p1", 2)])
def test_innocent_one_is_called_again_when_the_other_is_late_alone(
    replicas: tuple[int, ...], victim: str, seed: int
) -> None:
    """The one that hangs does not say so, and the other one is taken for it first."""
    habit = Habit(says=_keeps_it_to_itself, leaves_out=(SumPart, CombineParts))
    world = swarm_in_which(victim, habit, replicas, seed)
    seconds_until_fenced(world, victim, 100.0)
    assert len(fenced(world)) == 2, "the wrong one was fenced first"
    world.run(limit_s=600.0)
    assert world.disk.steps[-1].version == 30 and not world.disk.rollbacks


@pytest.mark.parametrize(("replicas", "victim", "seed"), VICTIMS)
def test_who_computes_nothing_is_not_let_in_again_before_it_does(
    replicas: tuple[int, ...], victim: str, seed: int
) -> None:
    """A thread hangs for a while. The process's loop says all the time that it is ready."""
    world = World(replicas, seed, steps=1000, microbatches=6, eval_every=0, checkpoint_every=0,
                  service_s=(0.05, 0.1))  # fmt: skip
    world.run_until(10)
    world.hang(PeerId(victim), "compute", 20.0)
    until = world.clock.now + 20.0
    while world.clock.now < until and world.clock.step():
        pass
    assert world.disk.recoveries["fenced"] == 1, world.disk.fenced
    assert fenced(world) == {victim}
    made_by = world.disk.steps[-1].version
    world.run_until(made_by + 30)
    stage = int(victim[1])
    assert any(victim in dict(step.digests[stage]) for step in world.disk.steps[made_by:])


def test_computation_that_hangs_before_any_was_timed_is_found_out() -> None:
    """A newcomer's first one: what it takes is not known, but it is no longer than a step."""
    world = World((2, 2), seed=2, steps=40, eval_every=0, service_s=(0.2, 0.3))
    world.run_until(5)
    newcomer = world.spawn(1)
    world.peers[newcomer].habit = HANGS["compute"]
    assert seconds_until_fenced(world, newcomer, 60.0)
    world.run(limit_s=600.0)
    assert fenced(world) == {newcomer}


@pytest.mark.parametrize("seed", range(3))
def test_a_lone_replica_whose_device_hangs_is_waited_for(seed: int) -> None:
    """Nobody could do its work, and what it has accumulated is not thrown away."""
    world = World((2, 1), seed, steps=30, microbatches=6, eval_every=0, checkpoint_every=0,
                  service_s=(0.05, 0.1))  # fmt: skip
    world.run_until(10)
    [lone] = world.live(1)
    world.hang(lone, "compute", 30.0)
    fenced = sum(world.disk.fenced.values())
    world.run()
    assert sum(world.disk.fenced.values()) == fenced, world.disk.fenced
    assert [report.version for report in world.disk.steps] == list(range(1, 31))
