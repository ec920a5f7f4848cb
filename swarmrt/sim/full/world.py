"""The full world: the fluid world's churn and placement, and a whole swarm of production cores.

Who comes gets a stage by the policy, and joins the swarm when its download is over; who leaves is
killed. What the swarm then does is its own affair: how it notices, what it redoes, and when it lets
a newcomer in. No real peer moves to another stage yet, so a policy that moves somebody is refused.
"""

from __future__ import annotations

from swarmrt.errors import UsageError
from swarmrt.ids import PeerId
from swarmrt.scheduler.peer.work.pace import BACKWARD_COST
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.sim.fluid.members import Member
from swarmrt.sim.fluid.policies.policy import Policy
from swarmrt.sim.fluid.result import Result
from swarmrt.sim.fluid.scene import Scene
from swarmrt.sim.fluid.steps import microbatches_of
from swarmrt.sim.fluid.world import World as Fluid
from swarmrt.sim.swarm.world import World as Swarm

NO_END = 1_000_000  # steps
QUEUE_MICROBATCHES = 20  # of the slowest peer: who waits for more answers BUSY


class World(Fluid):
    """A whole swarm under a scene. With `is_checked` all invariants are checked after every event,
    and all is remembered."""

    def __init__(
        self,
        scene: Scene,
        policy: Policy,
        result: Result,
        *,
        with_timeline: bool = False,
        is_checked: bool = False,
    ) -> None:
        super().__init__(scene, policy, result, with_timeline=with_timeline)
        result.fidelity = "full"
        self._is_checked = is_checked
        self._swarm: Swarm | None = None  # it begins with the first peers
        self._peers: dict[str, PeerId] = {}
        self._first: list[Member] = []
        self._microbatches = microbatches_of(scene)

    def run(self) -> Result:
        result = super().run()
        result.regret["traffic"] = result.microbatches - self.landed
        result.microbatches = self.landed
        return result

    @property
    def landed(self) -> int:
        """Return how many microbatches all stages have accumulated."""
        if self._swarm is None:
            return 0
        core = self._swarm.trainer.process.core
        assert isinstance(core, TrainerCore)
        ledgers = [core.run.books[step] for step in core.run.books.steps]
        unfinished = sum(len({index for index, _ in ledger.missing()}) for ledger in ledgers)
        begun = len(self._swarm.disk.steps) + len(ledgers)
        return begun * self._microbatches - unfinished

    def _go_on(self, until: float) -> None:
        if self._first:
            self._swarm = self._begin()
        if self._swarm is not None:
            self._swarm.clock.go_on(until)
            stopped = self._swarm.trainer.stopped
            if stopped is not None:
                raise UsageError(f"the swarm stopped after {self._now:.0f} s: {stopped.reason}")
        super()._go_on(until)

    def _begin(self) -> Swarm:
        """Begin with the first peers, all of whom serve."""
        scene = self._scene
        needed = [0] * len(scene.stages)
        for member in self._first:
            assert member.serving is not None, "it serves"
            needed[member.serving] += 1
        slowest = min(scene.traits_of(change.name).rate for change in scene.changes)
        swarm = Swarm(
            [0] * len(scene.stages),
            self.result.seed,
            needed=needed,
            steps=NO_END,
            microbatches=self._microbatches,
            eval_every=0,
            checkpoint_every=0,
            queue_s=QUEUE_MICROBATCHES * max(self._computes) / slowest,
            retained_frames=self._microbatches,
            staleness=scene.staleness,
            policy=scene.wiring,
            is_checked=self._is_checked,
        )
        self._swarm = swarm
        first, self._first = self._first, []
        for member in first:
            assert member.serving is not None, "it serves"
            self._spawn(swarm, member, member.serving)
        return swarm

    def _spawn(self, swarm: Swarm, member: Member, stage: int) -> None:
        service_s = self._computes[stage] / member.traits.rate
        self._peers[member.name] = swarm.spawn(stage, service_s=service_s / (1 + BACKWARD_COST))

    def _serve(self, member: Member, stage: int, why: str) -> None:
        if member.serving not in (None, stage):
            raise UsageError(
                f"policy {self.result.policy}: with fidelity full nobody moves yet; static, gwtf "
                "and none move nobody"
            )
        is_new = member.serving is None
        super()._serve(member, stage, why)
        if is_new and self._swarm is None:
            self._first.append(member)
        elif is_new and self._swarm is not None:
            self._spawn(self._swarm, member, stage)

    def _stop_serving(self, member: Member) -> None:
        raise UsageError(f"policy {self.result.policy}: with fidelity full nobody moves yet")

    def _leave(self, name: str) -> None:
        peer = self._peers.pop(name, None)
        if peer is not None and self._swarm is not None:
            self._swarm.kill(peer)
        super()._leave(name)
