"""The steps of a scene, in microbatches."""

from __future__ import annotations

from swarmrt.sim.fluid.scene import Scene


def microbatches_of(scene: Scene) -> int:
    """Return the microbatches of a step. Where a scene says its seconds, they are as many as the
    first peers could compute in it."""
    if scene.step_microbatches:
        return round(scene.step_microbatches)
    first = [c.name for c in scene.changes if c.joins and c.at_s == 0.0]
    rate = sum(scene.traits_of(name).rate for name in first)
    return max(1, round(scene.step_s * rate / sum(stage.compute for stage in scene.stages)))
