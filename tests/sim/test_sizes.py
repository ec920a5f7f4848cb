"""Simulated swarms whose messages have bytes, and whose links take time to carry them."""

from __future__ import annotations

import json

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Hail, Message, StateChunk
from swarmrt.scheduler.events import StateLoaded
from swarmrt.scheduler.instructions import LoadState
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.links import Bulk, Link, Sizes, Wires
from swarmrt.sim.swarm.world import World

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
HAIL = Hail(1)
SIZES = Sizes(state_bytes=60_000_000, gradient_bytes=20_000_000, activation_bytes=200_000)
HOME = Link(up_bytes_per_s=2.5e6, down_bytes_per_s=2.5e6, latency_s=0.025)


def arrivals(wires: Wires, clock: Clock, sends: list[tuple[PeerId, PeerId, int]]) -> list[float]:
    """When each of them is there."""
    at = [0.0] * len(sends)
    for index, (sender, to, size) in enumerate(sends):

        def arrived(index: int = index) -> None:
            at[index] = clock.now

        wires.push((sender, to), Bulk(HAIL, size, arrived, sender, to))
    while clock.step():
        pass
    return at


def test_bulk_takes_its_bytes_over_the_slower_of_two_links() -> None:
    clock = Clock()
    wires = Wires(clock, {A: Link(up_bytes_per_s=100.0), B: Link(down_bytes_per_s=50.0)})
    assert arrivals(wires, clock, [(A, B, 200)]) == pytest.approx([4.0])


def test_bulk_for_one_host_goes_in_order_and_for_several_side_by_side() -> None:
    clock = Clock()
    wires = Wires(clock, {A: Link(up_bytes_per_s=100.0)})
    sends = [(A, B, 100), (A, B, 100), (A, C, 300)]
    assert arrivals(wires, clock, sends) == pytest.approx([2.0, 4.0, 5.0])


def test_work_goes_before_state_which_has_a_quarter() -> None:
    """The state was sent first."""
    clock = Clock()
    wires = Wires(clock, {A: Link(up_bytes_per_s=100.0)})
    at: list[tuple[str, float]] = []
    chunk = StateChunk(0, 1, 0, 300, "digest")
    wires.push((A, B), Bulk(chunk, 300, lambda: at.append(("state", clock.now)), A, B))
    wires.push((A, B), Bulk(HAIL, 300, lambda: at.append(("work", clock.now)), A, B))
    while clock.step():
        pass
    assert dict(at) == pytest.approx({"work": 4.0, "state": 6.0})


def test_control_waits_for_one_chunk_of_bulk_and_no_more() -> None:
    clock = Clock()
    wires = Wires(clock, {A: Link(up_bytes_per_s=1 << 20)})
    assert wires.control_waits_s((A, B)) == 0.0
    wires.push((A, B), Bulk(HAIL, 100 << 20, lambda: None, A, B))
    assert wires.control_waits_s((A, B)) == pytest.approx(0.25)
    assert wires.control_waits_s((B, A)) == 0.0


def test_nothing_moves_of_a_host_that_stands_still() -> None:
    clock = Clock()
    wires = Wires(clock, {A: Link(up_bytes_per_s=100.0)})
    clock.after(1.0, lambda: wires.hold(B))
    clock.after(6.0, lambda: wires.let_go(B))
    assert arrivals(wires, clock, [(A, B, 200)]) == pytest.approx([7.0])


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_a_swarm_with_sizes_is_as_exact(seed: int, staleness: int) -> None:
    world = World([2, 3, 2], seed, steps=5, staleness=staleness, sizes=SIZES)
    world.run()
    assert [report.version for report in world.disk.steps] == [1, 2, 3, 4, 5]
    assert sorted(world.disk.checkpoints) == [2, 4, 5]


def test_same_seed_same_run_to_the_byte() -> None:
    def log() -> str:
        world = World([2, 2], 3, sizes=SIZES, links={PeerId("s1p0"): HOME})
        world.run()
        return json.dumps(world.log())

    assert log() == log()


def test_a_newcomer_loads_as_long_as_its_bytes_take() -> None:
    """60 MB over 2.5 MB/s, beside next to no gradients."""
    sizes = Sizes(60_000_000, gradient_bytes=1000, activation_bytes=1000)
    world = World([2, 2], seed=1, steps=300, checkpoint_every=0, eval_every=0, sizes=sizes)
    world.run_until(2)
    newcomer = world.peers[world.spawn(1, link=HOME)]
    world.run_until(30)
    asked, loaded = list[float](), list[float]()
    for record in newcomer.process.history:
        asked += [record.now for told in record.instructions if isinstance(told, LoadState)]
        loaded += [record.now] if isinstance(record.event, StateLoaded) else []
    assert loaded[0] - asked[0] == pytest.approx(24.0, rel=0.1)


def test_a_donor_that_is_killed_while_it_gives_is_done_without() -> None:
    world = World([2, 3], seed=1, steps=40, checkpoint_every=0, eval_every=0, sizes=SIZES)
    world.run_until(2)
    newcomer = world.peers[world.spawn(1)]
    given: list[Message] = []

    def copies(message: Message) -> int:
        if isinstance(message, StateChunk):
            given.append(message)
            if len(given) == 4:
                world.clock.after(0.0, lambda: world.kill(PeerId("s1p0")))
        return 1

    world.network.copies = copies
    world.run()
    assert len(given) >= 15 and len(newcomer.history) == 40
