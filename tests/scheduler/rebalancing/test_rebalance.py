"""Rebalancing, told as stories: who comes, who goes, and what is decided then."""

from __future__ import annotations

from dataclasses import replace

from swarmrt.scheduler.rebalancing.plan import Plan
from swarmrt.scheduler.rebalancing.rebalance import choose_stage, rebalance
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Limits, Peer, Stage, Swarm

NO_STANDBY = Settings(standby_share=0.0)
LIMITS = Limits(downlink_bytes_per_s=1.0)
STAGE = Stage(state_bytes=300.0, gradient_bytes=25.0)


def swarm(*peers: Peer, stages: int = 2, step_s: float = 120.0) -> Swarm:
    return Swarm(0.0, (STAGE,) * stages, peers, step_s)


def peer(
    name: str,
    serving: int | None = None,
    *also: int,
    rate: float = 1.0,
    loading: int | None = None,
    limits: Limits = LIMITS,
) -> Peer:
    holds = frozenset(also) | (frozenset() if serving is None else {serving})
    return Peer(name, rate, serving, holds, loading, serving is None, limits)


def loads(plan: Plan) -> dict[str, int]:
    return {download.peer: download.stage for download in plan.downloads}


def switches(plan: Plan) -> dict[str, int]:
    return {switch.peer: switch.to_stage for switch in plan.switches}


def test_a_newcomer_goes_to_the_poorest_stage() -> None:
    known = swarm(peer("a", 0), peer("b", 0), peer("c", 1), peer("new"))
    plan = rebalance(known, NO_STANDBY)
    assert loads(plan) == {"new": 1}
    assert plan.downloads[0].serves_when_loaded
    assert not plan.switches
    stage, why = choose_stage(known, NO_STANDBY, "new") or (None, "")
    assert stage == 1
    assert why == "a newcomer; this stage is the poorest, with 1/s"


def test_newcomers_count_where_they_are_loading() -> None:
    known = swarm(peer("a", 0), peer("b", 0), peer("c", 1), peer("d", loading=1), peer("new"))
    assert loads(rebalance(known, NO_STANDBY)) == {"new": 0}


def test_after_a_loss_whoever_stands_by_switches() -> None:
    known = swarm(peer("a", 0, 1), peer("b", 0), peer("c", 1))
    assert not switches(rebalance(known, NO_STANDBY)), "a move would gain nothing"
    known = swarm(peer("a", 0, 1), peer("b", 0), peer("c", 0), peer("d", 0), peer("e", 1))
    plan = rebalance(known, NO_STANDBY)
    assert switches(plan) == {"a": 1}
    assert plan.switches[0].why == "it holds the state; the swarm goes from 1/s to 2/s"
    assert not plan.downloads


def test_a_chain_of_switches_reaches_a_stage_that_nobody_rich_stands_by_for() -> None:
    """The rich stage 0 helps stage 1, which helps stage 2."""
    known = swarm(
        *(peer(name, 0) for name in "abc"), peer("d", 0, 1), peer("e", 1, 2), peer("f", 1),
        peer("g", 2), stages=3,
    )  # fmt: skip
    assert switches(rebalance(known, NO_STANDBY)) == {"d": 1, "e": 2}


def test_who_loads_goes_on_serving_and_nobody_loads_the_same_beside_it() -> None:
    known = swarm(*(peer(name, 0) for name in "abcd"), peer("e", 1))
    plan = rebalance(known, NO_STANDBY)
    assert loads(plan) == {"a": 1}
    assert not plan.downloads[0].serves_when_loaded
    assert not plan.downloads[0].stops_serving
    known = swarm(peer("a", 0, loading=1), *(peer(name, 0) for name in "bcd"), peer("e", 1))
    assert not rebalance(known, NO_STANDBY)
    known = swarm(peer("a", 0, 1), *(peer(name, 0) for name in "bcd"), peer("e", 1))
    assert switches(rebalance(known, NO_STANDBY)) == {"a": 1}


def test_what_is_not_served_is_forgotten_without_a_slot() -> None:
    known = swarm(peer("a", 0, 1), peer("b", 0), peer("c", 1), peer("d", 1))
    (drop,) = rebalance(known, NO_STANDBY).drops
    assert (drop.peer, drop.stage) == ("a", 1)
    assert not rebalance(known, Settings(standby_share=0.25)).drops


def test_a_plan_whose_second_half_is_still_loading_reserves_its_partner() -> None:
    """Two stages swap a fast and a slow peer. The slow one has its state first, which it keeps."""
    fast = peer("fast", 0, rate=6.0, loading=1)
    slow = peer("slow", 1, 0, rate=2.0)
    known = swarm(fast, peer("a", 0, rate=4.0), slow, peer("b", 1, rate=1.0))
    plan = rebalance(known, NO_STANDBY)
    assert not plan, plan.lines()
    known = swarm(replace(fast, loading=None, holds=frozenset({0, 1})), *known.peers[1:])
    assert switches(rebalance(known, NO_STANDBY)) == {"fast": 1, "slow": 0}


def test_a_swap_helps_where_a_move_does_not() -> None:
    known = swarm(
        peer("fast", 0, 1, rate=4.0), peer("a", 0, rate=4.0),
        peer("slow", 1, 0, rate=1.0), peer("b", 1, rate=3.0),
    )  # fmt: skip
    plan = rebalance(known, NO_STANDBY)
    rates = {0: 8.0, 1: 4.0}
    by_name = {p.name: p for p in known.peers}
    for switch in plan.switches:
        assert switch.from_stage is not None
        rates[switch.from_stage] -= by_name[switch.peer].rate
        rates[switch.to_stage] += by_name[switch.peer].rate
    assert min(rates.values()) == 5.0


def test_standby_goes_from_the_richest_stage_to_what_is_covered_least() -> None:
    known = swarm(peer("a", 0), peer("b", 0), peer("c", 1), peer("d", 1), peer("e", 2), stages=3)
    plan = rebalance(known, Settings(standby_share=0.2))
    (download,) = plan.downloads
    assert (download.peer, download.stage, download.is_standby) == ("a", 2, True)
    assert "the least" in download.why


def test_standby_is_declined_where_steps_are_too_short() -> None:
    """A gradient takes 25 s of the link, of which half a step may be used."""
    peers = [peer("a", 0), peer("b", 0), peer("c", 1), peer("d", 1)]
    assert rebalance(swarm(*peers, step_s=50.0), Settings()).downloads
    assert not rebalance(swarm(*peers, step_s=49.0), Settings())
    known = swarm(peer("a", 0, 1), *peers[1:], step_s=49.0)
    assert [drop.peer for drop in rebalance(known, Settings()).drops] == ["a"]


def test_a_rare_state_is_loaded_instead_of_a_common_one() -> None:
    known = swarm(
        peer("a", 0, 1), peer("b", 1, 0), peer("c", 0, 1), peer("d", 1, 0), peer("e", 2), stages=3
    )  # fmt: skip
    first = rebalance(known, Settings())
    assert [d for d in first.downloads if d.stage == 2 and d.is_standby]
    assert first.drops


def test_minima_are_filled_first_and_kept() -> None:
    stages = (Stage(least_replicas=2), Stage(least_replicas=2))
    peers = (peer("a", 0, rate=1.0), peer("b", 0, 1, rate=1.0), peer("c", 0, 1, rate=1.0))
    slow = Swarm(0.0, stages, (*peers, peer("d", 1, rate=9.0)))
    assert len(switches(rebalance(slow, NO_STANDBY))) == 1
    kept = Swarm(0.0, stages, (*peers[1:], peer("d", 1, rate=0.1), peer("e", 1, rate=0.1)))
    assert not rebalance(kept, NO_STANDBY).switches


def test_owners_limits() -> None:
    rich = [peer(name, 0) for name in "bcd"]

    def planned(limits: Limits) -> bool:
        pinned = [replace(one, limits=replace(LIMITS, may_move=False)) for one in rich]
        return bool(
            rebalance(swarm(peer("a", 0, limits=limits), *pinned, peer("e", 1)), NO_STANDBY)
        )

    assert planned(LIMITS)
    assert not planned(replace(LIMITS, stages=frozenset({0})))
    assert not planned(replace(LIMITS, may_move=False))
    assert not planned(replace(LIMITS, memory_bytes=599.0))
    assert not planned(replace(LIMITS, most_states=1))
    assert not planned(replace(LIMITS, until=300.0))


def test_a_download_that_would_not_pay_in_time_is_not_begun() -> None:
    known = swarm(*(peer(name, 0) for name in "abcd"), peer("e", 1))
    assert rebalance(known, replace(NO_STANDBY, expected_stay_s=3600.0))
    assert not rebalance(known, replace(NO_STANDBY, expected_stay_s=300.0))


def test_each_decision_says_why_in_one_line() -> None:
    known = swarm(
        peer("a", 0, 1), *(peer(name, 0) for name in "bcd"), peer("e", 1), peer("new"), peer("f", 0)
    )
    lines = rebalance(known, Settings()).lines()
    assert len(lines) >= 3
    assert all("\n" not in line and ": " in line for line in lines)
