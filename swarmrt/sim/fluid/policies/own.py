"""Our own rebalancing as a policy: `swarmrt`, or `swarmrt:SHARE` with that share of standby."""

from __future__ import annotations

from swarmrt.scheduler.rebalancing.plan import Plan
from swarmrt.scheduler.rebalancing.rebalance import rebalance
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Swarm

CHECK_S = 60.0  # rates change without anybody's coming or going


class Rebalancing:
    """The production decision, after every event, and once a minute for what rates do."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.period_s: float | None = CHECK_S
        self._known: tuple[float, ...] = ()

    def decide(self, swarm: Swarm) -> Plan:
        self._known = _changing(swarm)
        return rebalance(swarm, self.settings)

    def wake(self, swarm: Swarm) -> Plan:
        return self.decide(swarm) if _changing(swarm) != self._known else Plan()


def _changing(swarm: Swarm) -> tuple[float, ...]:
    """Return what changes without an event."""
    return swarm.step_s, *(peer.rate for peer in swarm.peers)
