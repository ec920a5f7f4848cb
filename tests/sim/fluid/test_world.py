"""The fluid world: small scenes whose outcome can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmrt.scheduler.rebalancing.plan import Plan
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Limits, Swarm
from swarmrt.sim.fluid.policies.own import Rebalancing
from swarmrt.sim.fluid.recorded import scene_of
from swarmrt.sim.fluid.result import Result
from swarmrt.sim.fluid.scene import Scene, Traits
from swarmrt.sim.fluid.simulate import simulate
from swarmrt.sim.fluid.trace import Change
from swarmrt.sim.fluid.world import World

HOUR = 3600.0


def scene(
    peers: int, *changes: Change, stages: int = 2, download_s: float = 300.0, end_s: float = HOUR
) -> Scene:
    there = tuple(Change(0.0, True, f"p{number}") for number in range(peers))
    made = scene_of((*there, *changes), stages, download_s=download_s)
    return replace(made, end_s=end_s)


def regret(result: Result) -> dict[str, float]:
    """Return what was lost by cause, in microbatches."""
    return {cause: round(lost, 6) for cause, lost in result.regret.items() if lost}


def test_without_churn_nothing_is_lost() -> None:
    result = simulate(scene(6), "swarmrt", with_timeline=True)
    assert result.microbatches == result.oracle_microbatches == 3 * HOUR
    assert result.switches == result.lost_states == 0
    assert regret(result) == {}
    assert result.downloads == 12, "each has a second state"
    assert [sample.rate for sample in result.samples if sample.at_s >= 0][-1] == 3


def test_a_loss_costs_detection_and_agreement_where_somebody_stands_by() -> None:
    """Two peers of one stage leave, and the two of the other stage stand by for it."""
    for seed in range(3):
        gone = [
            act.peer
            for act in simulate(scene(4), "swarmrt", seed, with_timeline=True).acts
            if act.what == "loaded" and act.stage == 0
        ][:2]
        leaving = [Change(1000.0, False, name) for name in gone]
        result = simulate(scene(4, *leaving), "swarmrt", seed, with_timeline=True)
        assert regret(result) == {"detect": 5.0, "decide": 2.0}
        assert result.switches == 1
        assert result.lost_states == 0


class Watching(Rebalancing):
    """Our policy, which notes what it is told of."""

    def __init__(self) -> None:
        super().__init__(Settings())
        self.told: list[Swarm] = []

    def decide(self, swarm: Swarm) -> Plan:
        self.told.append(swarm)
        return super().decide(swarm)


def test_nobody_knows_of_an_end_before_it_is_noticed() -> None:
    """One leaves, and another joins while the first is not missed yet."""
    policy, result = Watching(), Result("own", 0, 2)
    changes = (Change(1000.0, False, "p0"), Change(1002.0, True, "new"))
    World(scene(4, *changes), policy, result).run()
    told = {swarm.now: {peer.name: peer.holds for peer in swarm.peers} for swarm in policy.told}
    assert told[1002.0]["p0"] == {0, 1}, "it stood by"
    assert "p0" not in told[1005.0]


def test_what_happens_as_a_period_ends_is_told_too() -> None:
    """The states of four come after five minutes, as a check of each minute is due."""
    policy, result = Watching(), Result("own", 0, 2)
    World(scene(4), policy, result).run()
    assert 300.0 in {swarm.now for swarm in policy.told}


def test_without_standby_a_loss_costs_a_download_too() -> None:
    first = simulate(scene(5, stages=2), "swarmrt:0", with_timeline=True)
    poor = next(
        stage
        for stage in (0, 1)
        if sum(act.what == "loaded" and act.stage == stage for act in first.acts) == 2
    )
    gone = next(act.peer for act in first.acts if act.what == "loaded" and act.stage == poor)
    result = simulate(scene(5, Change(1000.0, False, gone)), "swarmrt:0")
    agreed_twice = 2 * 2.0  # to load, and to switch to what has come
    assert regret(result) == {"detect": 5.0, "decide": agreed_twice, "download": 300.0}
    assert (result.switches, result.downloads) == (1, 6)
    assert result.serving_lost_s == 0


def test_a_state_that_nobody_has_is_lost_and_loaded_again() -> None:
    result = simulate(
        scene(2, Change(1000.0, False, "p0"), Change(1500.0, True, "p2")), "swarmrt:0"
    )
    assert result.lost_states == 1
    assert result.microbatches == 1000.0 + HOUR - 1500 - 2 - 300
    assert regret(result) == {"restart": 2.0}, "the oracle too has waited for the download"


def test_what_was_lost_is_done_again_where_a_scene_says_so() -> None:
    lossy = scene(2, Change(1000.0, False, "p0"), Change(1500.0, True, "p2"))
    result = simulate(replace(lossy, redo_s=60.0), "swarmrt:0")
    assert regret(result) == {"restart": 62.0}


def test_newcomers_count_for_oracle_b_when_they_could_have_loaded() -> None:
    result = simulate(scene(2, Change(1000.0, True, "a"), Change(1000.0, True, "b")), "swarmrt")
    assert result.free_oracle_microbatches == HOUR + 2600
    assert result.oracle_microbatches == HOUR + 2300
    assert regret(result) == {"decide": 2.0} or regret(result) == {"download": 2.0}


def test_who_comes_back_before_it_was_missed_is_somebody_new() -> None:
    result = simulate(scene(4, Change(1000.0, False, "p0"), Change(1001.0, True, "p0")), "swarmrt")
    assert result.peers_joined == 5


def test_a_short_step_means_no_standby() -> None:
    short = replace(scene(6), step_s=30.0)
    assert simulate(short, "swarmrt").standby_downloads == 0


def test_stopping_for_a_download_is_counted() -> None:
    slow = Traits(1.0, Limits(downlink_bytes_per_s=1.0))
    lopsided = replace(scene(4, Change(500.0, False, "p0")), everybody=slow)
    assert simulate(lopsided, "swarm-literal:60").serving_lost_s > 0


@pytest.mark.parametrize("spread", [1.0, 8.0])
@pytest.mark.parametrize("length_spread", [0.0, 0.5])
@pytest.mark.parametrize("stages", [4, 8])
def test_a_day_of_noise_moves_nobody(spread: float, length_spread: float, stages: int) -> None:
    """24 peers, a fifth of noise in each microbatch, the settings of everything else. In the first
    half hour states are loaded."""
    calm = replace(
        scene_of(
            tuple(Change(0.0, True, f"p{number}") for number in range(24)),
            stages,
            download_s=300.0,
            spread=spread,
            noise=0.2,
            length_spread=length_spread,
        ),
        end_s=24 * HOUR,
    )
    result = simulate(calm, "swarmrt", with_timeline=True)
    late = [act for act in result.acts if act.at_s > HOUR / 2]
    assert late == []
