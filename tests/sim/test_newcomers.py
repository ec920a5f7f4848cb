"""Stories of newcomers at home, with the bytes that they have to carry: nobody waits for them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import LeftOut, Message
from swarmrt.scheduler.events import StateLoaded
from swarmrt.scheduler.instructions import ReportLeftOut
from swarmrt.scheduler.trainer.closing.holding import MOST_HOLDS
from swarmrt.sim.engine.links import Link, Sizes
from swarmrt.sim.swarm.world import World

RATE = 2.5e6  # bytes a second: 20 Mb/s
HOME = Link(up_bytes_per_s=RATE, down_bytes_per_s=RATE, latency_s=0.025)
CAN = Sizes(state_bytes=22_000_000, gradient_bytes=7_000_000, activation_bytes=40_000)
CANNOT = Sizes(state_bytes=233_000_000, gradient_bytes=78_000_000, activation_bytes=40_000)
CAME_AT = 4  # version


class Story:
    """A newcomer of stage 0, which is the bottleneck, from version 4 on, until the run is over."""

    def __init__(
        self,
        replicas: int,
        service_s: float,
        sizes: Sizes,
        steps: int,
        link: Link = HOME,
        copies: Callable[[Message], int] = lambda _: 1,
    ) -> None:
        world = World((replicas, 1), seed=5, steps=steps, microbatches=8 * replicas, sizes=sizes,
                      service_s=(0.02, 0.02), eval_every=0, checkpoint_every=0)  # fmt: skip
        for peer in world.live(0):
            world.peers[peer].jobs.service_s = service_s
        world.network.copies = copies
        world.run_until(CAME_AT)
        self.world, self.sizes, self.link, self.came_at_s = world, sizes, link, world.clock.now
        self.newcomer: PeerId = world.spawn(0, link=link, service_s=service_s)
        world.run(limit_s=20_000)
        assert [report.version for report in world.disk.steps] == list(range(1, steps + 1))

    def gaps(self) -> list[float]:
        """Between one commit and the next, since it has come."""
        times = self.world.disk.committed_at[CAME_AT - 1 :]
        return [later - earlier for earlier, later in itertools.pairwise(times)]

    @property
    def round_s(self) -> float:
        """That one more round takes over its link."""
        slower = min(self.link.up_bytes_per_s, self.link.down_bytes_per_s)
        return self.sizes.gradient_bytes / slower

    def first_commit(self) -> int:
        """The first version that it has helped to make."""
        reports = self.world.disk.steps
        return next(r.version for r in reports if self.newcomer in dict(r.digests[0]))

    def version_when_loaded(self) -> int:
        """The version of the others when it had its first state."""
        history = self.world.peers[self.newcomer].process.history
        loaded_at = next(r.now for r in history if isinstance(r.event, StateLoaded))
        return sum(at <= loaded_at for at in self.world.disk.committed_at)

    def told(self) -> list[tuple[float, ReportLeftOut]]:
        """What its owner is told, and how long after it has come."""
        history = self.world.peers[self.newcomer].process.history
        reports = [(record.now, i) for record in history for i in record.instructions]
        return [(at - self.came_at_s, i) for at, i in reports if isinstance(i, ReportLeftOut)]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("service_s", [0.8, 0.2])
def test_who_can_carry_a_gradient_in_a_step_is_in_at_the_second_commit_after_it_has_the_state(
    service_s: float, replicas: int
) -> None:
    """Steps of 19 s and of 5 s; a gradient takes it 3 s."""
    story = Story(replicas, service_s, CAN, steps=14)
    assert story.first_commit() <= story.version_when_loaded() + 2
    assert len(story.world.peers[story.newcomer].history) == 14
    assert not story.told()
    assert max(story.gaps()) < 2 * statistics.median(story.gaps()) + story.round_s


@pytest.mark.parametrize("replicas", [1, 2])
def test_who_cannot_is_told_why_and_nobody_notices(replicas: int) -> None:
    """Steps of 1.5 or 2 s; a gradient takes it 31 s, and its state 93 s."""
    story = Story(replicas, 0.06, CANNOT, steps=30)
    (after_s, told), *_ = story.told()
    assert after_s < 30
    assert told.what == "link" and told.takes_s == pytest.approx(31.2, rel=0.05)
    assert told.bytes_per_s == pytest.approx(RATE, rel=0.05) and 1 < told.step_s < 4
    assert max(story.gaps()) < 2 * statistics.median(story.gaps())


@pytest.mark.parametrize("number", [0, 2])
def test_the_word_that_one_is_left_out_may_be_lost_or_come_twice(number: int) -> None:
    said = 0

    def copies(message: Message) -> int:
        nonlocal said
        said += isinstance(message, LeftOut)
        return number if isinstance(message, LeftOut) and said == 1 else 1

    story = Story(1, 0.06, CANNOT, steps=26, copies=copies)
    ((after_s, told),) = story.told()
    assert said == (2 if number == 0 else 1) and after_s < 30 and told.what == "link"


def test_whose_uplink_shows_only_in_rounds_is_left_out_after_two_of_them() -> None:
    """It loads at 20 Mb/s, and sends at 2 Mb/s: a step of 5 s would take 30 s with it."""
    link = Link(up_bytes_per_s=RATE / 10, down_bytes_per_s=RATE, latency_s=0.025)
    story = Story(1, 0.2, CAN, steps=24, link=link)
    ((_, told),) = story.told()
    assert told.what == "round" and told.takes_s > 20 > told.step_s
    assert sum(gap > 20 for gap in story.gaps()) == 2
    assert max(story.gaps()) < 2 * statistics.median(story.gaps()) + story.round_s


@pytest.mark.parametrize("resumes", [False, True])
def test_who_makes_steps_long_is_left_out_by_the_next_trainer_as_well(resumes: bool) -> None:
    """Activations of 4 MB take its link 1.6 s each, which no reduce shows: steps of 10 s take 18 s.

    The trainer is killed just before it comes in: with the next one it is there from the first step
    on, and of steps without it nothing is known but what was told.
    """
    sizes = Sizes(state_bytes=22_000_000, gradient_bytes=7_000_000, activation_bytes=4_000_000)
    world = World((1, 1), seed=5, steps=16, microbatches=16, sizes=sizes,
                  service_s=(0.02, 0.02), eval_every=0, checkpoint_every=0)  # fmt: skip
    world.peers[PeerId("s0p0")].jobs.service_s = 0.2
    world.run_until(2)
    slow = world.spawn(0, link=HOME, service_s=0.2)
    world.run_until(3)
    assert not any(slow in dict(report.digests[0]) for report in world.disk.steps)
    if resumes:
        world.kill_trainer()
        world.clock.after(2.0, world.resume_trainer)
    world.run(limit_s=2000)
    told, *_ = world.peers[slow].left_out
    assert told.what == "step" and told.takes_s > 15 and told.step_s < 11
    gaps = [later - earlier for earlier, later in itertools.pairwise(world.disk.committed_at)]
    assert max(gaps[-3:]) < 12


def test_who_cannot_is_let_in_all_the_same_where_nobody_else_is_left() -> None:
    """The only replica of stage 0 dies; then the one at home is better than none."""
    world = World((1, 1), seed=3, steps=8, microbatches=4, sizes=CANNOT, service_s=(0.05, 0.05),
                  eval_every=0, checkpoint_every=3)  # fmt: skip
    world.run_until(4)
    while 3 not in world.disk.checkpoints:
        world.clock.step()
    world.kill(PeerId("s0p0"))
    newcomer = world.peers[world.spawn(0, link=HOME)]
    world.run(limit_s=1000)
    assert len(newcomer.history) == 8 and not newcomer.left_out


def test_whose_link_becomes_slow_in_a_round_is_left_out_of_it() -> None:
    """Its parts go on moving, at 160 kb/s: the round would take six minutes."""
    world = World((3, 1), seed=5, steps=20, microbatches=8, sizes=CAN, service_s=(0.05, 0.05),
                  eval_every=0, checkpoint_every=0)  # fmt: skip
    world.run_until(10)
    slow, wires = PeerId("s0p0"), world.network.wires
    assert wires is not None
    wires.links[slow] = Link(up_bytes_per_s=20_000, down_bytes_per_s=20_000)
    world.run(limit_s=world.clock.now + 120.0)
    assert world.disk.steps[-1].version == 20 and world.peers[slow].left_out


def test_who_follows_while_it_loads_for_a_minute_holds_up_eight_commits_and_no_more() -> None:
    """What it misses meanwhile takes most of its link."""
    sizes = Sizes(state_bytes=150_000_000, gradient_bytes=1_500_000, activation_bytes=1000)
    world = World((1, 1), seed=5, steps=40, microbatches=2, sizes=sizes, service_s=(0.2, 0.2),
                  eval_every=0, checkpoint_every=0)  # fmt: skip
    world.run_until(4)
    world.spawn(0, link=HOME)
    world.run()
    gaps = [later - earlier for earlier, later in itertools.pairwise(world.disk.committed_at)]
    assert sum(gap > 1.3 * min(gaps) for gap in gaps) == MOST_HOLDS


@pytest.mark.parametrize("load_s", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_nobody_waits_for_a_newcomer_whose_state_takes_long(load_s: int) -> None:
    """Two stages of two, steps of a second, next to no gradients. All of the missed steps are kept.

    The long one: `pytest -m slow tests/sim/test_newcomers.py`.
    """
    sizes = Sizes(int(load_s * RATE), gradient_bytes=100_000, activation_bytes=1000)
    world = World((2, 2), seed=1, steps=40 + load_s, microbatches=6, service_s=(0.1, 0.1),
                  sizes=sizes, eval_every=0, checkpoint_every=0)  # fmt: skip
    world.run_until(3)
    newcomer = world.spawn(1, link=HOME)
    world.run()
    times = world.disk.committed_at
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 40 + load_s
    assert max(gaps) < 2 * statistics.median(gaps) + 0.2
    assert len(world.peers[newcomer].history) == 40 + load_s
