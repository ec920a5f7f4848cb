"""The full world: whole swarms of production cores under a scene's churn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmrt.sim.fidelity import simulate
from swarmrt.sim.fluid.churn import poisson
from swarmrt.sim.fluid.policies.named import make_policy
from swarmrt.sim.fluid.recorded import scene_of
from swarmrt.sim.fluid.result import Result
from swarmrt.sim.fluid.scene import Scene
from swarmrt.sim.full.world import World


def churning(seed: int, *, peers: int, stages: int, life_s: float, end_s: float) -> Scene:
    changes = poisson(peers, life_s, end_s, seed)
    noise = 0.2 / 3**0.5  # what computations of the full simulator have
    made = scene_of(changes, stages, download_s=30.0, step_s=60.0, detect_s=1.0, noise=noise)
    equal = tuple(replace(stage, gradient_bytes=0.0) for stage in made.stages)
    return replace(made, stages=equal, end_s=end_s, latency_s=0.035)


def test_steps_are_committed_and_checked_while_peers_come_and_go() -> None:
    scene = churning(1, peers=8, stages=2, life_s=300.0, end_s=200.0)
    world = World(scene, make_policy("static", 1), Result("static", 1, 2), is_checked=True)
    row = world.run().row()
    assert row["fidelity"] == "full"
    assert 0.5 < row["throughput_over_oracle"] < 1.05
    assert world.landed > world._microbatches, "steps were committed"


def test_the_same_seed_gives_the_same_bytes() -> None:
    scene = churning(1, peers=6, stages=2, life_s=300.0, end_s=100.0)
    first, second = (simulate(scene, "static", 1, fidelity="full") for _ in range(2))
    assert first.to_json() == second.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_flow_and_full_come_to_nearly_the_same(seed: int) -> None:
    """64 peers in 4 stages for half an hour, of whom each stays for an hour: within 3 %.

    python -m pytest -m slow tests/sim/full
    """
    scene = churning(seed, peers=64, stages=4, life_s=3600.0, end_s=1800.0)
    flow, full = (
        simulate(scene, "static", seed, fidelity=name).row()["throughput"]
        for name in ("flow", "full")
    )
    print(f"flow {flow:.4f}, full {full:.4f} microbatches/s: {flow / full - 1:+.2%}")
    assert flow == pytest.approx(full, rel=0.03)
