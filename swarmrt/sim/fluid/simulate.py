"""Simulate a scene with a policy: the one call behind the command, sweeps and tests."""

from __future__ import annotations

from swarmrt.sim.fluid.policies.named import ORACLES, make_policy
from swarmrt.sim.fluid.result import Result
from swarmrt.sim.fluid.scene import Scene
from swarmrt.sim.fluid.world import World


def simulate(scene: Scene, policy: str, seed: int = 0, *, with_timeline: bool = False) -> Result:
    """Return what becomes of a scene under a policy. Equal arguments give an equal result.

    Raises UsageError for a policy that is unknown, or that makes plans without end.
    """
    if policy in ORACLES:
        return _oracle(scene, policy, seed)
    result = Result(policy, seed, len(scene.stages))
    world = World(scene, make_policy(policy, seed), result, with_timeline=with_timeline)
    return world.run()


def _oracle(scene: Scene, policy: str, seed: int) -> Result:
    """Return what an oracle would do, which is known beside any other policy."""
    result = World(scene, make_policy("none", seed), Result(policy, seed, len(scene.stages))).run()
    rate = {"a": result.free_oracle_microbatches, "b": result.oracle_microbatches}
    return Result(
        policy,
        seed,
        result.stages,
        duration_s=result.duration_s,
        peers_joined=result.peers_joined,
        microbatches=rate[ORACLES[policy]],
        oracle_microbatches=rate["b"],
        free_oracle_microbatches=rate["a"],
    )
