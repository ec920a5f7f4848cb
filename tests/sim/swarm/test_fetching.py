"""Newcomers in simulated swarms whose state is nearly here when something happens to a donor."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swarmrt.ids import PeerId
from swarmrt.scheduler.events import StateLoaded
from swarmrt.scheduler.instructions import LoadState
from swarmrt.sim.engine.links import Link, Sizes
from swarmrt.sim.swarm.fetching import CHUNK_BYTES
from swarmrt.sim.swarm.world import World

STATE_BYTES = 100_000_000  # 40 s over the newcomer's link, in 24 chunks
OWED_BYTES = 2 * CHUNK_BYTES  # by a donor, at the most
HOME = Link(up_bytes_per_s=2.5e6, down_bytes_per_s=2.5e6, latency_s=0.025)


class Story:
    """A swarm of two stages, the second of so many replicas, and a newcomer at home that loads its
    state."""

    def __init__(self, replicas: int, checkpoint_every: int = 0, **links: Link) -> None:
        sizes = Sizes(STATE_BYTES, gradient_bytes=1000, activation_bytes=1000)
        self.world = World(
            [1, replicas], seed=1, steps=1000, microbatches=2, eval_every=0, sizes=sizes,
            checkpoint_every=checkpoint_every, service_s=(0.5, 0.5),
            links={PeerId(name): link for name, link in links.items()},
        )  # fmt: skip
        self.world.run_until(4)

    def comes(self, link: Link = HOME) -> None:
        self.newcomer = self.world.spawn(1, link=link)

    @property
    def came_bytes(self) -> int:
        wires = self.world.network.wires
        assert wires is not None
        return wires.moved_bytes(self.newcomer)[0]

    @property
    def loads(self) -> list[float]:
        """Return when it was told to load."""
        history = self.world.peers[self.newcomer].process.history
        return [r.now for r in history for what in r.instructions if isinstance(what, LoadState)]

    @property
    def is_loaded(self) -> bool:
        history = self.world.peers[self.newcomer].process.history
        return any(isinstance(record.event, StateLoaded) for record in history)

    def load(self, at: float, then: Callable[[], None]) -> None:
        """Load, and let something happen when that share of it is here."""
        has_happened = False
        while not self.is_loaded:
            assert self.world.clock.step() and self.world.clock.now < 300
            if not has_happened and self.came_bytes >= at * STATE_BYTES:
                has_happened = True
                then()
        assert has_happened


def test_a_donor_that_is_killed_at_nine_tenths_costs_what_it_owed() -> None:
    story = Story(3)
    story.comes()
    story.load(0.9, lambda: story.world.kill(PeerId("s1p0")))
    assert story.came_bytes <= STATE_BYTES + OWED_BYTES and len(story.loads) == 1


def test_a_link_that_breaks_at_nine_tenths_costs_what_was_on_its_way() -> None:
    """There is no other donor; it is asked again, and gives what is missing."""
    story = Story(1)
    story.comes()
    story.load(0.9, lambda: story.world.network.cut(story.newcomer, PeerId("s1p0"), 3.0))
    assert story.came_bytes <= STATE_BYTES + OWED_BYTES and len(story.loads) == 1


def test_a_trainer_that_restarts_goes_on_giving_its_checkpoint() -> None:
    """The stage is lost, and comes again from the checkpoint that the trainer offers."""
    story = Story(2, checkpoint_every=2)
    for peer in story.world.live(1):
        story.world.kill(peer)
    story.comes()

    def restart() -> None:
        story.world.kill_trainer()
        story.world.clock.after(3.0, story.world.resume_trainer)

    story.load(0.9, restart)
    assert story.came_bytes <= STATE_BYTES + OWED_BYTES and len(story.loads) == 2


def checkpointed() -> Story:
    """The version that the newcomer loads is also that of the checkpoint."""
    story = Story(1, checkpoint_every=8)
    story.world.run_until(7)
    story.comes()
    return story


def kill_donors(story: Story) -> None:
    for peer in set(story.world.live(1)) - {story.newcomer}:
        story.world.kill(peer)


@pytest.mark.parametrize("gone_s", [3.0, 200.0])
def test_what_has_landed_outlasts_the_trainer_and_all_donors(gone_s: float) -> None:
    story = checkpointed()

    def lose_all() -> None:
        story.world.kill_trainer()
        kill_donors(story)
        story.world.clock.after(gone_s, story.world.resume_trainer)

    story.load(0.4, lose_all)
    assert story.came_bytes <= STATE_BYTES + OWED_BYTES and len(story.loads) == 2


def test_a_state_that_has_landed_while_the_trainer_was_gone_is_not_got_again() -> None:
    """Nobody else has it any more when the next trainer comes."""
    story = checkpointed()
    story.load(0.4, story.world.kill_trainer)
    kill_donors(story)
    before = len(story.world.disk.steps)
    story.world.resume_trainer()
    while len(story.world.disk.steps) < before + 3:
        assert story.world.clock.step() and story.world.clock.now < 300
    assert len(story.loads) == 1 and story.came_bytes < STATE_BYTES + OWED_BYTES


@pytest.mark.parametrize("slow", [Link(up_bytes_per_s=250_000), Link(up_bytes_per_s=2_500)])
def test_a_slow_donor_holds_nobody_up(slow: Link) -> None:
    """Two others give it in half a second."""
    story = Story(3, s1p0=slow)
    story.comes(Link())
    story.load(0.9, lambda: None)
    assert story.world.clock.now - story.loads[0] < 3.0
    assert story.came_bytes <= STATE_BYTES + OWED_BYTES
