"""The fidelities of a simulation: how much of a swarm is really played.

`fluid`: rates between one change and the next. `flow`: each microbatch, wired as in real swarms.
"""

from __future__ import annotations

from swarmrt.errors import UsageError
from swarmrt.sim.flow.world import World as Flow
from swarmrt.sim.fluid.policies.named import ORACLES, make_policy
from swarmrt.sim.fluid.result import Result
from swarmrt.sim.fluid.scene import Scene
from swarmrt.sim.fluid.simulate import simulate as fluid

FIDELITIES = ("fluid", "flow")


def check_fidelity(name: str) -> None:
    """Raise UsageError if there is no such fidelity."""
    if name not in FIDELITIES:
        raise UsageError(f"fidelity {name!r} is unknown: they are {', '.join(FIDELITIES)}")


def simulate(
    scene: Scene,
    policy: str,
    seed: int = 0,
    *,
    fidelity: str = "fluid",
    with_timeline: bool = False,
) -> Result:
    """Return what becomes of a scene under a policy. Equal arguments give an equal result.

    Raises UsageError for a policy or fidelity that is unknown, or a policy without end.
    """
    check_fidelity(fidelity)
    if fidelity == "fluid" or policy in ORACLES:  # an oracle has no traffic
        return fluid(scene, policy, seed, with_timeline=with_timeline)
    result = Result(policy, seed, len(scene.stages))
    world = Flow(scene, make_policy(policy, seed), result, with_timeline=with_timeline)
    return world.run()
