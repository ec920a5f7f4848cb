"""Whole swarms of cores, whose peers are told lies all the time: by a stranger who says whatever it
likes, or in the name of one another, about what was asked and answered.

A simulated peer notices at once when it is to keep a frame that is not of this run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import (
    ALL_MESSAGES,
    Accepted,
    Busy,
    GetFrame,
    Message,
    NoFrame,
    Part,
    Stale,
)
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.sim.swarm.world import TRAINER, World
from tests.trust.test_fuzz import Liar

STRANGER = PeerId("stranger")
STRANGERS_WORDS = tuple(kind for kind in ALL_MESSAGES if kind is not Part)  # kept for a while
ANSWERS = (Accepted, Busy, Stale, GetFrame, NoFrame)


def haunt(
    world: World,
    seed: int,
    kinds: Sequence[type[Message]] = STRANGERS_WORDS,
    every_s: float = 0.02,
    *,
    by_members: bool = False,
) -> list[PeerId]:
    """Somebody says something to one peer after the other; to whom."""
    rng, told = random.Random(f"stranger {seed}"), list[PeerId]()
    world.network.connect(STRANGER, lambda event, payload: None)

    def epoch() -> int:
        core = world.trainer.process.core
        assert isinstance(core, TrainerCore)
        return core.run.epoch

    liar = Liar(rng, epoch)

    def speak() -> None:
        live = [peer for stage in range(world.num_stages) for peer in world.live(stage)]
        if live:
            told.append(rng.choice(live))
            sender = rng.choice(live) if by_members else STRANGER
            world.network.send(sender, told[-1], liar.message(rng.choice(kinds)), "made up")
        world.clock.after(every_s, speak)

    world.clock.after(0.0, speak)
    return told


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_stranger_costs_peers_nothing(staleness: int) -> None:
    """The same steps, equal replicas, every microbatch once, and in as much time."""
    for seed in range(5):
        alone, haunted = (World([2, 2, 2], seed, steps=5, staleness=staleness) for _ in range(2))
        alone.run()
        told = haunt(haunted, seed)
        haunted.run(limit_s=300)
        assert len(told) > 200 and len(haunted.disk.steps) == 5
        assert haunted.clock.now < 2 * alone.clock.now + 5
        assert not haunted.disk.recoveries["fenced"]


def test_made_up_answers_of_members_cost_time_and_nothing_else() -> None:
    for seed in range(10):
        world = World([2, 2, 2], seed, steps=5, staleness=seed % 2)
        told = haunt(world, seed, ANSWERS, every_s=0.05, by_members=True)
        world.run(limit_s=600)
        assert len(told) > 100 and len(world.disk.steps) == 5


def test_a_stranger_costs_peers_nothing_either_when_others_come_and_go() -> None:
    for seed in range(5):
        world = World([2, 2, 2], seed, steps=8)
        haunt(world, seed)
        world.run_until(version=2)
        world.kill(world.live(1)[0])
        world.spawn(stage=1)
        world.drain(world.live(2)[0])
        world.run_until(version=4)
        world.kill_trainer()
        world.clock.after(2.0, world.resume_trainer)
        world.run(limit_s=600)
        assert TRAINER not in world.peers and max(r.version for r in world.disk.steps) == 8
