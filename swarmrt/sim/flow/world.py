"""The flow world: the fluid world's churn and decisions, and microbatches among those who serve.

Rates are what devices have measured, and the throughput is what has landed. The fluid world goes on
beside it: it says what the best partition would make, and what is lost by whose decision. What is
missing to it is the traffic's: pipelines that fill, queues, wiring, steps, and work that is lost.
"""

from __future__ import annotations

from swarmrt.scheduler.timing.intervals import beacon_s
from swarmrt.sim.flow.seats import Device
from swarmrt.sim.flow.traffic import Opening, Settings, Traffic
from swarmrt.sim.fluid.members import Member
from swarmrt.sim.fluid.policies.policy import Policy
from swarmrt.sim.fluid.result import Result
from swarmrt.sim.fluid.scene import Scene
from swarmrt.sim.fluid.steps import microbatches_of
from swarmrt.sim.fluid.world import World as Fluid

LOOK_S = 60.0  # between two looks at what has landed, for a picture


class World(Fluid):
    def __init__(
        self, scene: Scene, policy: Policy, result: Result, *, with_timeline: bool = False
    ) -> None:
        super().__init__(scene, policy, result, with_timeline=with_timeline)
        result.fidelity = "flow"
        first = sum(change.joins and change.at_s == 0.0 for change in scene.changes)
        self.traffic = Traffic(
            Settings(
                stages=len(scene.stages),
                latency_s=scene.latency_s,
                noise=scene.noise,
                length_spread=scene.length_spread,
                step_microbatches=microbatches_of(scene),
                staleness=scene.staleness,
                reduce_s=_reduce_s(scene),
                beacon_s=beacon_s(first),
                policy=scene.wiring,
                seed=result.seed,
            )
        )
        self._devices: dict[str, Device] = {}
        self._opening: dict[tuple[str, int], Opening] = {}
        self._looked_at = self._looked_landed = 0.0

    def run(self) -> Result:
        result = super().run()
        result.regret["traffic"] = result.microbatches - self.traffic.landed
        result.microbatches = self.traffic.landed
        return result

    def _go_on(self, until: float) -> None:
        traffic = self.traffic
        if self._opening:
            traffic.opens(list(self._opening.values()))
            self._opening.clear()
        if self._is_restarting:
            traffic.stop()
        else:
            traffic.go_on()
        while self._with_timeline and self._looked_at + LOOK_S <= until:
            traffic.run(self._looked_at + LOOK_S)
            landed = (traffic.landed - self._looked_landed) / LOOK_S
            self.result.landed.append((self._looked_at, landed))
            self._looked_at, self._looked_landed = traffic.now, traffic.landed
        traffic.run(until)
        super()._go_on(until)

    # ------------------------------------------------------------------ who is there

    def _join(self, name: str) -> None:
        before = self._devices.get(name)
        if before is not None:
            self._missed(name)  # who comes again was away
        super()._join(name)
        self._devices[name] = Device(name, self._scene.traits_of(name).rate)

    def _leave(self, name: str) -> None:
        device = self._devices[name]
        for key in [key for key in self._opening if key[0] == name]:
            del self._opening[key]
        self.traffic.dies(device)
        super()._leave(name)

    def _notice(self, member: Member) -> None:
        super()._notice(member)
        device = self._devices.get(member.name)
        if device is not None and not device.is_alive:
            self._missed(member.name)

    def _missed(self, name: str) -> None:
        self.traffic.misses(self._devices.pop(name))

    def _serve(self, member: Member, stage: int, why: str) -> None:
        before = member.serving
        super()._serve(member, stage, why)
        if before == stage:
            return
        self._stops_serving(member, before)
        device, compute = self._devices[member.name], self._scene.stages[stage].compute
        opening = device, stage, compute / device.rate, compute / member.mean.told
        if before is None and self._now > 0:
            self.traffic.joins(opening)
        else:
            self._opening[member.name, stage] = opening

    def _stop_serving(self, member: Member) -> None:
        self._stops_serving(member, member.serving)
        super()._stop_serving(member)

    def _stops_serving(self, member: Member, stage: int | None) -> None:
        if stage is not None and self._opening.pop((member.name, stage), None) is None:
            self.traffic.closes(self._devices[member.name], stage)

    def _measure(self, member: Member) -> None:
        device = self._devices.get(member.name)
        if device is not None and device.is_alive:
            member.mean.record(*device.measured())


def _reduce_s(scene: Scene) -> float:
    """Return how long the slowest stage reduces: everybody sends and receives a gradient twice."""
    if scene.reduce_s is not None:
        return scene.reduce_s
    downlinks = [t.limits.downlink_bytes_per_s for t in (scene.everybody, *scene.traits.values())]
    return 2 * max(stage.gradient_bytes for stage in scene.stages) / min(downlinks)
