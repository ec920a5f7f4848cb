"""Whatever hangs is found out, though its process still beacons, and the others go on without it.

A thread that hangs takes what it is given, and nothing ever comes of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pytest
from msgspec.structs import replace

from swarmrt.errors import RunError
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
from swarmrt.scheduler.trainer.closing.missing import Missing
from swarmrt.sim.engine.links import Link, Sizes
from swarmrt.sim.swarm.dishonest import Habit
from swarmrt.sim.swarm.world import World


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
    """A newcomer's first backward: what it takes is not known, but it is no longer than a step."""
    world = World((2, 2), seed=2, steps=40, microbatches=2, eval_every=0, service_s=(0.2, 0.3))
    world.run_until(5)
    newcomer = world.spawn(0)
    world.peers[newcomer].habit = _hangs(RunBackward, RunWeightGradients)
    assert seconds_until_fenced(world, newcomer, 30.0)
    world.run(limit_s=600.0)
    assert fenced(world) == {newcomer}


def test_a_run_that_nobody_can_go_on_with_ends_though_the_others_repeat_what_they_did() -> None:
    """The only replica of stage 1 hangs. Stage 0 prepares anew in each round, which is nothing."""
    world = World((1, 1), seed=1, steps=10, microbatches=2, eval_every=0, checkpoint_every=0)
    world.run_until(5)
    world.peers[PeerId("s1p0")].habit = HANGS["combining"]
    with pytest.raises(RunError, match=r"no progress .* waiting for PREPARED of \['s1p0'\]"):
        world.run(limit_s=2000.0)


def test_whom_no_other_rule_finds_is_done_without_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reduce hangs, and nobody counts who is missing: nothing comes forward for five minutes."""
    monkeypatch.setattr(Missing, "again", lambda *_: [])
    world = swarm_in_which("s1p0", HANGS["sums"], (2, 2), seed=1)
    began_at = world.clock.now
    world.run(limit_s=began_at + 600.0)
    assert fenced(world) == {"s1p0"} and any("nothing has come" in w for w in world.disk.fenced)


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


def test_who_was_left_out_as_slow_is_called_back_when_the_other_one_hangs() -> None:
    """Found by a soak: the one that hung was alone then, and was waited for until it moved again.

    The link of s1p0 becomes slow, so one of the two is left out. Then the reduce of the other one
    hangs for longer than anybody waits.
    """
    sizes = Sizes(state_bytes=24_000_000, gradient_bytes=8_000_000, activation_bytes=1000)
    world = World((1, 2), seed=1, steps=40, microbatches=4, eval_every=0, checkpoint_every=0,
                  service_s=(0.005, 0.005), sizes=sizes)  # fmt: skip
    world.run_until(20)
    assert world.network.wires is not None
    world.network.wires.links[PeerId("s1p0")] = Link(up_bytes_per_s=0.4e6)
    while not world.disk.fenced:
        world.clock.step()
    (left_out,) = fenced(world)
    assert all("a reduce with it takes" in why for why in world.disk.fenced)
    (other,) = set(world.live(1)) - {left_out}
    world.hang(other, "reduce", 1000.0)
    world.run(limit_s=world.clock.now + 100.0)
    assert world.disk.steps[-1].version == 40 and not world.disk.rollbacks


def test_who_hangs_beside_a_slow_link_goes_alone() -> None:
    """The slow link is of the same stage: its rounds have always been that long."""
    slow, hung = PeerId("s1p0"), PeerId("s1p1")
    cable = Link(up_bytes_per_s=5e6, down_bytes_per_s=25e6, latency_s=0.01)
    sizes = Sizes(state_bytes=24_000_000, gradient_bytes=8_000_000, activation_bytes=1000)
    world = World((1, 2), seed=1, steps=40, microbatches=4, eval_every=0, checkpoint_every=0,
                  service_s=(0.005, 0.005), sizes=sizes, links={slow: cable})  # fmt: skip
    world.run_until(30)
    world.hang(hung, "reduce", 1000.0)
    world.run(limit_s=world.clock.now + 100.0)
    assert world.disk.steps[-1].version == 40 and fenced(world) == {hung}


def test_who_hangs_after_a_slow_link_is_gone_is_waited_for_no_longer_than_the_others_need() -> None:
    """Found by a soak: what rounds took over the slow link was learned, and waited for beside what
    the links of those that are left take."""
    slow, hung = PeerId("s1p0"), PeerId("s1p1")
    home = Link(up_bytes_per_s=2.5e6, down_bytes_per_s=2.5e6, latency_s=0.025)
    sizes = Sizes(state_bytes=24_000_000, gradient_bytes=8_000_000, activation_bytes=1000)
    world = World((1, 3), seed=1, steps=12, microbatches=4, eval_every=0, checkpoint_every=0,
                  service_s=(0.2, 0.3), sizes=sizes, links={slow: home})  # fmt: skip
    world.run_until(8)
    gone_at = world.clock.now
    assert not world.disk.fenced, "the slow link is worth its while"
    world.kill(slow)
    world.hang(hung, "reduce", 1000.0)
    world.run_until(9)
    assert fenced(world) == {slow, hung} and world.clock.now < gone_at + 45.0


def test_a_reduce_that_hangs_before_any_was_timed_is_found_out() -> None:
    """Found by a soak: until a round had been timed nobody was missing in one."""
    world = World((2, 2), seed=1, steps=4, eval_every=0, checkpoint_every=0)
    while world.trainer.process.now < 5.0:
        world.clock.step()
    world.hang(PeerId("s1p0"), "reduce", 1000.0)
    assert not world.disk.steps
    world.run_until(1)
    assert world.clock.now < 130.0 and fenced(world) == {"s1p0"}


def test_second_hang_does_not_end_the_first() -> None:
    """Found by a soak: a computation went on later than its peer was said to hang."""
    world = World((1, 1), seed=1, steps=8, eval_every=0, checkpoint_every=0)
    world.run_until(3)
    world.hang(PeerId("s1p0"), "compute", 30.0)
    world.hang(PeerId("s1p0"), "compute", 5.0)
    began_at = world.clock.now
    world.run_until(5)
    assert began_at + 30.0 < world.clock.now < began_at + 45.0
    assert not world.peers[PeerId("s1p0")].jobs.is_hung


def test_computation_that_hangs_before_a_restarted_trainer_has_timed_any_is_found_out() -> None:
    """Found by a soak: what a computation takes was known to the peers alone."""
    world = World((1, 3), seed=1, steps=6, eval_every=0, checkpoint_every=0)
    world.run_until(2)
    world.kill_trainer()
    world.clock.after(0.5, world.resume_trainer)
    world.clock.after(1.5, partial(world.hang, PeerId("s1p0"), "compute", 1000.0))
    world.run(limit_s=world.clock.now + 80.0)
    assert world.disk.steps[-1].version == 6 and "s1p0" in fenced(world)


def test_what_was_given_up_and_then_accumulated_waits_for_no_late_flight() -> None:
    """Found by a soak: no frames are retained, a replica of stage 0 dies, and the only one of stage
    1 hangs just then. Once it moves, gradients come for what was given up meanwhile."""
    world = World((2, 1, 1), seed=1, steps=6, microbatches=6, eval_every=0, checkpoint_every=0,
                  retained_frames=0, staleness=1)  # fmt: skip
    world.run_until(3)
    world.kill(PeerId("s0p1"))
    dies_at = world.clock.now
    while world.clock.now < dies_at + 3.5:
        world.clock.step()
    world.hang(PeerId("s1p0"), "compute", 160.0)
    moves_at = world.clock.now + 160.0
    world.run(limit_s=moves_at + 60.0)
    assert world.disk.recoveries["released"] and world.disk.steps[-1].version == 6
