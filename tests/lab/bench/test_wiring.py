"""The share of its capacity that a simulated swarm comes to by its wiring."""

from __future__ import annotations

from swarmrt.lab.bench.wiring_swarm import Swarm, Wired
from swarmrt.lab.bench.wiring_times import times

SMALL = Swarm(stages=2, replicas=12, seed=3)


def test_swarm_of_unequal_replicas_comes_to_nearly_all_it_could() -> None:
    wired = Wired(SMALL)
    wired.shares(30.0)
    assert min(wired.shares(60.0)) > 0.9


def test_the_same_seed_gives_the_same_shares() -> None:
    assert Wired(SMALL).shares(30.0) == Wired(SMALL).shares(30.0)


def test_no_replica_holds_more_than_it_can() -> None:
    wired = Wired(Swarm(stages=2, replicas=12, seed=3, holds=5))
    wired.shares(60.0)
    assert max(seat.most_held for seat in wired.seats) == 5, "and some are at their limit"
    assert wired.shares(60.0)[0] > 0.7


def test_a_swarm_is_wired_by_a_policy_of_the_users_own() -> None:
    own = Wired(Swarm(stages=2, replicas=12, policy="examples.two_choices:TwoChoices"))
    assert own.shares(60.0) != Wired(Swarm(stages=2, replicas=12)).shares(60.0)


def test_all_kinds_of_calls_are_timed() -> None:
    found = times(100, choices=200)
    assert {"set_peers", "choose", "add"} <= set(found)
    assert all(0 <= taken.median_us <= taken.worst_percent_us for taken in found.values())
