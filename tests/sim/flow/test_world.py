"""The flow world: microbatches among production wiring, under churn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from swarmrt.sim.fidelity import simulate
from swarmrt.sim.flow.world import World
from swarmrt.sim.fluid.churn import poisson
from swarmrt.sim.fluid.policies.named import make_policy
from swarmrt.sim.fluid.recorded import scene_of
from swarmrt.sim.fluid.result import Result
from swarmrt.sim.fluid.scene import Scene
from swarmrt.sim.fluid.trace import Change


def still(peers: int, *changes: Change, stages: int = 2, end_s: float = 1800.0) -> Scene:
    """Return a scene in which nobody comes or goes beside these changes."""
    there = tuple(Change(0.0, True, f"p{number}") for number in range(peers))
    made = scene_of((*there, *changes), stages, download_s=60.0, noise=0.1)
    return replace(made, end_s=end_s)


def churning(seed: int) -> Scene:
    changes = poisson(20, 1200.0, 1500.0, seed)
    made = scene_of(changes, 4, download_s=60.0, seed=seed, step_s=60.0, noise=0.1)
    return replace(made, end_s=1500.0)


def test_a_swarm_without_churn_comes_to_nearly_what_it_could() -> None:
    row = simulate(still(8), "static", fidelity="flow").row()
    assert row["fidelity"] == "flow"
    assert 0.95 < row["throughput_over_oracle"] <= 1.0


def test_what_is_lost_has_its_causes() -> None:
    """Causes and throughput add up to the oracle's; the fluid simulation has the same ones."""
    row = simulate(churning(1), "swarmrt", 1, fidelity="flow").row()
    fluid = simulate(churning(1), "swarmrt", 1).row()
    lost = {key: share for key, share in row.items() if key.startswith("regret_")}
    assert sum(lost.values()) + row["throughput_over_oracle"] == pytest.approx(1.0)
    assert set(lost) == {key for key in fluid if key.startswith("regret_")} | {"regret_traffic"}
    assert row["throughput_over_oracle"] < fluid["throughput_over_oracle"]


@pytest.mark.parametrize("policy", ["swarmrt", "swarm:15", "petals:0.75", "static"])
@pytest.mark.parametrize("seed", range(2))
def test_each_microbatch_of_a_committed_step_is_in_one_accumulator_of_each_stage(
    policy: str, seed: int
) -> None:
    """Nothing is lost and nothing counts twice, whoever dies, switches or comes again."""
    scene = churning(seed)
    world = World(scene, make_policy(policy, seed), Result(policy, seed, len(scene.stages)))
    traffic, seats, reduced = world.traffic, {}, 0
    opens, commit = traffic.opens, traffic.steps.commit

    def opens_and_notes(opened: list[tuple[object, int, float, float]]) -> None:
        opens(opened)  # type: ignore[arg-type]
        for seat in traffic.rosters.by_name.values():
            seats[id(seat)] = seat

    def commits_and_looks() -> bool:
        nonlocal reduced
        done: Counter[int] = Counter()
        for seat in seats.values():
            if not seat.is_gone:
                done[seat.stage] += seat.done[traffic.steps.committed]
        whole = traffic.steps.microbatches
        assert done == dict.fromkeys(range(len(scene.stages)), whole)
        reduced += 1
        return commit()

    traffic.opens, traffic.steps.commit = opens_and_notes, commits_and_looks  # type: ignore[method-assign,assignment]
    world.run()
    assert reduced > 2


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = (simulate(churning(2), "swarmrt", 2, fidelity="flow") for _ in range(2))
    assert first.to_json() == second.to_json()
    other = simulate(churning(2), "swarmrt", 3, fidelity="flow")
    assert other.to_json() != first.to_json()


def test_rates_are_what_devices_have_measured() -> None:
    """A peer that is half as fast as it said is known for it, and the stages are evened out."""
    scene = still(8)
    world = World(scene, make_policy("swarmrt", 0), Result("swarmrt", 0, 2))
    join = world._join

    def joins(name: str) -> None:
        join(name)
        if name == "p0":
            world._devices[name].rate = 0.5

    world._join = joins  # type: ignore[method-assign]
    world.run()
    told = {name: member.mean.told for name, member in world._members.items()}
    assert told["p0"] == pytest.approx(0.5, rel=0.05)
    assert all(rate == 1.0 for name, rate in told.items() if name != "p0")


def test_a_swarm_is_wired_by_a_policy_of_the_users_own() -> None:
    own = replace(churning(0), wiring="examples.two_choices:TwoChoices")
    rows = [simulate(scene, "static", fidelity="flow").row() for scene in (own, churning(0))]
    assert rows[0]["throughput"] != rows[1]["throughput"]


def test_what_has_landed_is_in_the_timeline() -> None:
    result = simulate(still(8), "static", fidelity="flow", with_timeline=True)
    rates = [rate for _, rate in result.landed]
    assert len(rates) == 30
    assert rates[-1] == pytest.approx(4.0, rel=0.1)
