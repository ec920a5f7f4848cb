"""Plans of made-up swarms: what holds for all of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmrt.scheduler.rebalancing.limits import fits, may_serve
from swarmrt.scheduler.rebalancing.plan import Plan
from swarmrt.scheduler.rebalancing.rebalance import rebalance
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Limits, Peer, Stage, Swarm


@st.composite
def swarms(draw: st.DrawFn) -> Swarm:
    count = draw(st.integers(1, 5))
    places = st.integers(0, count - 1)
    stages = tuple(
        Stage(
            compute=draw(st.sampled_from([0.5, 1.0, 2.0])),
            state_bytes=draw(st.sampled_from([0.0, 100.0, 300.0])),
            gradient_bytes=25.0,
            least_replicas=draw(st.integers(0, 2)),
        )
        for _ in range(count)
    )
    equal = draw(st.booleans())
    peers = []
    for number in range(draw(st.integers(0, 12))):
        serving = draw(st.none() | places)
        holds = draw(st.frozensets(places, max_size=2))
        if serving is not None:
            holds |= {serving}
        loading = draw(st.sampled_from([None, *(s for s in range(count) if s not in holds)]))
        limits = Limits(
            stages=draw(st.none() | st.frozensets(places, min_size=1)),
            memory_bytes=draw(st.sampled_from([300.0, 600.0, 1e9])),
            most_states=draw(st.integers(1, 3)),
            downlink_bytes_per_s=draw(st.sampled_from([1.0, 10.0])),
            may_move=draw(st.booleans()),
            until=draw(st.sampled_from([50.0, 1e9])),
        )
        rate = 1.0 if equal else draw(st.floats(0.1, 10.0))
        serves = loading is not None and serving is None
        peers.append(Peer(f"p{number}", rate, serving, holds, loading, serves, limits))
    return Swarm(0.0, stages, tuple(peers), draw(st.sampled_from([10.0, 1000.0])))


def obeyed(swarm: Swarm, plan: Plan) -> Swarm:
    """Return a swarm when all has been done that can be done at once."""
    peers = {peer.name: peer for peer in swarm.peers}
    for drop in plan.drops:
        peer = peers[drop.peer]
        assert drop.stage in peer.holds
        peers[drop.peer] = replace(peer, holds=peer.holds - {drop.stage})
    for switch in plan.switches:
        assert switch.to_stage in peers[switch.peer].holds
        peers[switch.peer] = replace(peers[switch.peer], serving=switch.to_stage)
    for download in plan.downloads:
        peers[download.peer] = replace(
            peers[download.peer],
            loading=download.stage,
            serves_when_loaded=download.serves_when_loaded,
        )
    return replace(swarm, peers=tuple(peers.values()))


def replicas(swarm: Swarm, stage: int) -> int:
    return sum(peer.serving == stage for peer in swarm.peers)


shares = st.sampled_from([0.0, 0.25, 1.0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(swarms(), shares)
def test_no_stage_falls_below_its_minimum(swarm: Swarm, share: float) -> None:
    after = obeyed(swarm, rebalance(swarm, Settings(standby_share=share)))
    for number, stage in enumerate(swarm.stages):
        before = replicas(swarm, number)
        assert replicas(after, number) >= min(before, stage.least_replicas)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(swarms(), shares)
def test_switches_never_make_the_swarm_slower(swarm: Swarm, share: float) -> None:
    def rate(of: Swarm) -> float:
        return min(
            sum(p.rate for p in of.peers if p.serving == number) / stage.compute
            for number, stage in enumerate(of.stages)
        )

    def lacking(of: Swarm) -> int:
        return sum(max(0, s.least_replicas - replicas(of, n)) for n, s in enumerate(of.stages))

    after = obeyed(swarm, rebalance(swarm, Settings(standby_share=share)))
    assert lacking(after) < lacking(swarm) or rate(after) >= rate(swarm) - 1e-9


@settings(max_examples=60, deadline=None, derandomize=True)
@given(swarms(), shares)
def test_owners_limits_hold(swarm: Swarm, share: float) -> None:
    plan = rebalance(swarm, Settings(standby_share=share))
    peers = {peer.name: peer for peer in swarm.peers}
    after = {peer.name: peer for peer in obeyed(swarm, plan).peers}
    for switch in plan.switches:
        assert may_serve(peers[switch.peer], switch.to_stage)
    for download in plan.downloads:
        peer = peers[download.peer]
        assert may_serve(peer, download.stage)
        assert fits(peer, [*after[download.peer].holds, download.stage], swarm.stages)
        seconds = swarm.stages[download.stage].state_bytes / peer.limits.downlink_bytes_per_s
        assert swarm.now + seconds < peer.limits.until


@settings(max_examples=60, deadline=None, derandomize=True)
@given(swarms(), shares)
def test_no_state_is_counted_twice(swarm: Swarm, share: float) -> None:
    """Nobody loads what is there or on its way, nor two states; nobody switches twice."""
    plan = rebalance(swarm, Settings(standby_share=share))
    peers = {peer.name: peer for peer in swarm.peers}
    for download in plan.downloads:
        assert peers[download.peer].loading is None
        assert download.stage not in peers[download.peer].holds
    for names in ([d.peer for d in plan.downloads], [s.peer for s in plan.switches]):
        assert len(names) == len(set(names))
    assert len({(d.peer, d.stage) for d in plan.drops}) == len(plan.drops)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(swarms(), shares)
def test_a_plan_is_a_function_of_its_input(swarm: Swarm, share: float) -> None:
    knobs = Settings(standby_share=share)
    assert rebalance(swarm, knobs) == rebalance(replace(swarm), knobs)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(swarms(), shares)
def test_obeying_comes_to_an_end(swarm: Swarm, share: float) -> None:
    for _ in range(6):
        plan = rebalance(swarm, Settings(standby_share=share))
        if not plan:
            return
        swarm = obeyed(swarm, plan)
    raise AssertionError(plan.lines())
