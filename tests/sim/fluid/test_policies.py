"""Policies by name, what sets them apart, and those of users."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from swarmrt.errors import UsageError
from swarmrt.scheduler.rebalancing.plan import Download, Plan
from swarmrt.scheduler.rebalancing.swarm import Swarm
from swarmrt.sim.fluid.policies.named import make_policy
from swarmrt.sim.fluid.policies.newcomers import ToPoorest
from swarmrt.sim.fluid.recorded import scene_of
from swarmrt.sim.fluid.result import Result
from swarmrt.sim.fluid.simulate import simulate
from swarmrt.sim.fluid.sweep import Job, sweep
from swarmrt.sim.fluid.trace import read_trace

SPOT = read_trace(Path(__file__).parents[3] / "examples" / "traces" / "p3-spot.csv")
UNEQUAL = scene_of(SPOT[:160], 4, download_s=60.0, spread=8.0)
OTHERS = ["none", "static", "gwtf", "swarm:60", "swarm-literal:60", "petals:0.75"]


def share(result: Result) -> float:
    return float(result.row()["throughput_over_oracle"])


@pytest.mark.parametrize(("stages", "least", "quarter"), [(4, 0.99, 0.98), (8, 0.98, 0.93)])
def test_standby_hides_downloads_on_a_recorded_trace(
    stages: int, least: float, quarter: float
) -> None:
    scene = scene_of(SPOT, stages, download_s=300.0)
    own = simulate(scene, "swarmrt")
    assert share(own) > least
    assert own.serving_lost_s == own.lost_states == 0
    assert own.row()["extra_downloads_per_peer"] < 1.1
    assert share(simulate(scene, "swarmrt:0.25")) > quarter
    strong = simulate(scene, "swarm:60")
    assert own.switches < 1.75 * strong.switches
    assert share(own) > share(strong) + 0.025


@functools.cache
def own_share() -> float:
    return share(simulate(UNEQUAL, "swarmrt"))


@pytest.mark.parametrize("policy", OTHERS)
def test_every_other_policy_plays_the_trace_and_is_behind(policy: str) -> None:
    result = simulate(UNEQUAL, policy)
    assert 0.3 < share(result) < own_share()
    regret = sum(result.row()[f"regret_{cause}"] for cause in result.regret)
    assert abs(share(result) + regret - 1) < 1e-9, "all that is lost has a cause"


def test_oracles_are_policies() -> None:
    scene = scene_of(SPOT, 4, download_s=300.0)
    assert share(simulate(scene, "oracle")) == 1.0
    free = simulate(scene, "oracle-free").row()
    assert free["throughput_over_free_oracle"] == 1.0
    assert free["throughput_over_oracle"] > 1.0


def test_gwtf_goes_by_capacity_and_static_by_speed() -> None:
    scene = scene_of(SPOT, 4, spread=8.0)
    assert share(simulate(scene, "gwtf")) < share(simulate(scene, "static"))
    equal = scene_of(SPOT, 4)
    assert share(simulate(equal, "gwtf")) == share(simulate(equal, "static"))


BAD = {
    "unknown": ("swarmr", "policy 'swarmr' is unknown; did you mean 'swarmrt'?"),
    "no number": ("swarm:fast", "after the colon comes a number at least 1"),
    "too small": ("swarm:0", "after the colon comes a number at least 1"),
    "too large": ("swarmrt:2", "after the colon comes a number from 0 to 1"),
    "no module": ("nowhere.to:Be", "cannot be imported: No module named 'nowhere'"),
    "no class": ("json:Nothing", "cannot be imported: module 'json' has no attribute 'Nothing'"),
    "no seed": ("pathlib:Path", "is not made with a seed: expected str"),
    "no policy": ("builtins:float", "has no period_s, decide, wake"),
    "an escape": ("\x1b[2J", r"policy '\\x1b[2J' is unknown"),
}


@pytest.mark.parametrize(("name", "expected"), BAD.values(), ids=BAD)
def test_a_bad_name_gets_a_sentence(name: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_policy(name, 0)
    assert expected in str(caught.value)


class Mine(ToPoorest):
    """A user's own policy."""


class Endless(ToPoorest):
    """A policy that has the first peer load what it has, for ever and at once."""

    def decide(self, swarm: Swarm) -> Plan:
        name = swarm.peers[0].name
        return Plan(downloads=(Download(name, 0, "again", serves_when_loaded=True),))


class Astray(ToPoorest):
    """A policy that knows of a stage that is not there."""

    def decide(self, swarm: Swarm) -> Plan:
        return Plan(downloads=(Download(swarm.peers[0].name, 99, "far"),))


def test_a_users_own_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    scene = scene_of(SPOT, 4)
    own = simulate(scene, "test_policies:Mine")
    assert share(own) == share(simulate(scene, "static"))
    with pytest.raises(UsageError, match="comes to no end at 0.0 s"):
        simulate(scene, "test_policies:Endless")
    with pytest.raises(UsageError, match="stage 99 of node.* does not exist"):
        simulate(scene, "test_policies:Astray")


@pytest.mark.parametrize("policy", ["swarmrt", *OTHERS])
def test_the_same_seed_gives_the_same_result_to_the_byte(policy: str) -> None:
    """Also in another process, whose strings have other hashes."""
    scene = scene_of(SPOT[:80], 4, download_s=60.0, spread=8.0, seed=3)
    one = simulate(scene, policy, 3, with_timeline=True)
    two = simulate(scene, policy, 3, with_timeline=True)
    assert one.to_json() == two.to_json()
    assert one.acts == two.acts
    assert one.samples == two.samples


def test_a_sweep_gives_the_same_rows_from_any_number_of_processes() -> None:
    jobs = [
        Job(scene_of(SPOT[:80], 4, download_s=60.0, spread=8.0, seed=seed), policy, seed, {"n": 4})
        for policy in ("swarmrt", "none")
        for seed in range(2)
    ]
    rows = sweep(jobs, processes=2)
    assert json.dumps(rows) == json.dumps(sweep(jobs))
    assert [(row["policy"], row["seed"], row["n"]) for row in rows] == [
        ("swarmrt", 0, 4), ("swarmrt", 1, 4), ("none", 0, 4), ("none", 1, 4),
    ]  # fmt: skip
    assert rows[0]["throughput"] != rows[1]["throughput"]
