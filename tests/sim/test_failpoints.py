"""Every failpoint, and every message lost or doubled, in whole simulated swarms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import (
    ALL_MESSAGES,
    Barred,
    DialBack,
    DialedBack,
    Ending,
    Facts,
    GetFacts,
    GetState,
    GiveUp,
    Knock,
    LeftOut,
    Message,
    NoState,
    NotInvited,
    Offer,
    Probe,
    Probed,
    Renewed,
    SayEvery,
    StateChunk,
    Take,
    Unable,
    Welcome,
)
from swarmrt.scheduler.failpoints import all_points
from swarmrt.scheduler.timing.intervals import MOST_BEACONS_PER_S
from swarmrt.sim.engine.process import Process
from swarmrt.sim.swarm.world import TRAINER, World

SEEDS = range(1, 30)  # until one of them comes to it
ELSEWHERE = ("rename", "write", ".move.")  # on disks, and where peers move: `test_moves`
FEW_PER_S = 3.0  # beacons, of which six peers are to make fewer
IN_WORLD = [point for point in all_points() if not any(part in point for part in ELSEWHERE)]
NOT_FOR_CORES = (
    GetState, StateChunk, NoState, Probe, Probed, DialBack, DialedBack,
    Knock, Welcome, NotInvited, Renewed, Barred, Ending, Unable, GetFacts, Facts,
)  # fmt: skip
# Nobody is too slow in these worlds (`test_sim_newcomers`), and nobody moves (`test_moves`).
NOT_HERE = (*NOT_FOR_CORES, LeftOut, Offer, Take, GiveUp)
MESSAGES = [kind for kind in ALL_MESSAGES if kind not in NOT_HERE]


def eventful(seed: int, most_beacons_per_s: float = MOST_BEACONS_PER_S) -> World:
    """Whatever can happen does: a kill, a drain, a newcomer, a pause, a cut, a new trainer."""
    frames = 6 if seed % 2 else 0
    queue_s = 0.2 if seed % 3 == 0 else 5.0  # so that some are told to come later
    world = World(
        [2, 2, 2],
        seed,
        steps=8,
        checkpoint_every=1,
        retained_frames=frames,
        queue_s=queue_s,
        by_owners=seed % 2 == 0,
        most_beacons_per_s=most_beacons_per_s,
        averaging={"strategy": "async", "local_batch": 2} if seed % 4 == 3 else None,
    )
    world.run_until(version=1)
    acts: list[tuple[float, Callable[[], Any]]] = [
        (0.6, lambda: world.kill(world.live(1)[0])),
        (1.0, lambda: world.spawn(1)),
        (2.0, lambda: drain_first(world, 0)),
        (2.5, lambda: world.spawn(0)),
        (3.0, lambda: cut(world, world.live(2)[:1], world.live(2)[-1:], 4.0)),
        (4.0, lambda: cut(world, world.live(0)[-1:], world.live(1)[-1:], 2.0)),
        (5.0, world.kill_trainer),
        (6.0, world.resume_trainer),
        (8.0, lambda: pause_one(world, 2)),
        (9.0, lambda: take_device(world, 1)),
        (15.0, lambda: kill_all(world, 2)),
        (16.0, lambda: world.spawn(2)),
    ]
    for at_s, act in acts:
        world.clock.after(at_s, act)
    return world


def drain_first(world: World, stage: int) -> None:
    for peer in world.live(stage)[:1]:
        world.drain(peer)


def cut(world: World, some: list[PeerId], others: list[PeerId], seconds: float) -> None:
    for one, other in zip(some, others, strict=False):  # there may be none by then
        world.network.cut(one, other, seconds)


def pause_one(world: World, stage: int) -> None:
    for peer in world.live(stage)[:1]:
        world.pause(peer, 5.0)


def take_device(world: World, stage: int) -> None:
    for peer in world.live(stage)[-1:]:
        world.take_device(peer, 4.0)


def kill_all(world: World, stage: int) -> None:
    for peer in world.live(stage):
        world.kill(peer)


def bring_back(world: World, process: Process) -> None:
    """What a supervisor would do about a process that is gone."""
    if process.me == TRAINER:
        world.resume_trainer()
    elif not world.live(world.peers[process.me].settings.stage):
        world.spawn(world.peers[process.me].settings.stage)


@pytest.mark.parametrize("action", ["kill", "pause"])
@pytest.mark.parametrize("point", IN_WORLD)
def test_failpoint(point: str, action: str) -> None:
    """The first process that passes it, and the third, fail there; `run` checks the promises."""
    assert any(fails_at(point, action, seed) for seed in SEEDS), f"nobody passed {point}"


def fails_at(point: str, action: str, seed: int) -> bool:
    """Whether a process came to fail there."""
    world = eventful(seed)
    passages = 0
    failed = []

    def at_failpoint(process: Process, passed: str) -> None:
        nonlocal passages
        if passed != point:
            return
        passages += 1
        if passages not in (1, 3):
            return
        failed.append(process.me)
        if action == "pause":
            world.pause(process.me, 3.0)
        elif process.me == TRAINER:
            world.kill_trainer()
        else:
            world.kill(process.me)
        if action == "kill":
            world.clock.after(2.0, lambda: bring_back(world, process))

    world.at_failpoint = at_failpoint
    world.run()
    return bool(failed)


@pytest.mark.parametrize("what", ["doubled", "lost", "lost again and again"])
@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_message_comes_twice_or_not_at_all(kind: type[Message], what: str) -> None:
    sent = any(arrives_otherwise(kind, what, seed) for seed in SEEDS)
    assert sent, f"nobody sent a {kind.__name__}"


def arrives_otherwise(kind: type[Message], what: str, seed: int) -> bool:
    """Whether such a message was sent."""
    world = eventful(seed, FEW_PER_S if kind is SayEvery else MOST_BEACONS_PER_S)
    count = 0

    def copies(message: Message) -> int:
        nonlocal count
        if type(message) is not kind:
            return 1
        count += 1
        match what:
            case "doubled":
                return 2
            case "lost":
                return int(count not in (2, 5, 9))
            case _:
                return int(count > 20 or count % 3 == 0)

    world.network.copies = copies
    world.run()
    return count > 0
