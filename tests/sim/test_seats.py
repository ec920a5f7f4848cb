"""Simulated processes with several seats, which share a device and a link."""

from __future__ import annotations

import pytest

from swarmrt.ids import PeerId, peer_of, seat_of, stage_of
from swarmrt.sim.schedules import faults, seats
from swarmrt.sim.swarm.world import World

H0, H1 = PeerId("h0"), PeerId("h1")


def test_two_processes_with_two_stages_each_train_exactly() -> None:
    world = World([0, 0, 0, 0], seed=4, hosts=[(0, 2), (1, 3)])
    world.run()
    assert {peer_of(name) for name in world.peers} == {H0, H1}
    assert all(len(peer.history) == 5 for peer in world.peers.values())
    assert [stage_of(name) for name in world.peers] == [0, 2, 1, 3]


def test_killed_process_loses_both_of_its_seats_and_no_gradient() -> None:
    """Each of its stages has another replica, which does again what was lost."""
    world = World([1, 1, 1], seed=7, hosts=[(0, 2)], microbatches=12)
    world.run_until(version=2)
    world.clock.after(0.5, lambda: world.kill(seat_of(H0, 2)))
    world.run()
    assert not any(peer.process.alive for peer in world.seats(H0))
    assert not world.disk.rollbacks
    assert {what.split(",")[0] for what in world.disk.fenced} or world.disk.recoveries[
        "fenced"
    ] >= 2
    assert all(len(world.peers[PeerId(name)].history) == 5 for name in ("s0p0", "s1p0", "s2p0"))


def test_drained_process_leaves_with_both_seats_and_the_run_goes_on() -> None:
    world = World([1, 1, 1], seed=5, hosts=[(0, 1)], microbatches=8)
    world.run_until(version=2)
    world.drain(H0)
    world.run()
    assert all(peer.stopped is not None for peer in world.seats(H0))
    left = {what.split(",")[0] for what in world.disk.fenced if "it has left" in what}
    assert left == {"stage 0", "stage 1"} and not world.disk.rollbacks


@pytest.mark.parametrize("seed", range(40))
def test_seeded_schedules_keep_the_promises(seed: int) -> None:
    faults.play(seats.draw(50_000 + seed))
