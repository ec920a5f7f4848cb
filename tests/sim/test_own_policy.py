"""A simulated swarm that is wired by a policy of the user's own."""

from __future__ import annotations

import pytest

from examples.two_choices import TwoChoices
from swarmrt.ids import SeatId
from swarmrt.sim.swarm.world import World

OWN = "examples.two_choices:TwoChoices"


def test_a_policy_of_the_users_own_wires_every_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[SeatId | None] = []
    choose = TwoChoices.choose

    def noted(self: TwoChoices, now: float) -> SeatId | None:
        chosen.append(choose(self, now))
        return chosen[-1]

    monkeypatch.setattr(TwoChoices, "choose", noted)
    world = World([2, 2, 2], seed=3, policy=OWN)
    world.run()
    assert all(len(peer.history) == 5 for peer in world.peers.values())
    assert {name for name in world.peers} == set(chosen) - {None}


def test_a_policy_of_the_users_own_keeps_the_promises_under_faults() -> None:
    world = World([2, 2, 2], seed=3, policy=OWN, microbatches=12)
    world.run_until(version=2)
    world.kill(next(iter(world.peers)))
    world.run()
    assert not world.disk.rollbacks
