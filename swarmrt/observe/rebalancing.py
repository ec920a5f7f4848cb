"""The outlook of a live run: what would be done now, why, and what it gains and costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from swarmrt.foreign import printable
from swarmrt.messages import Idle
from swarmrt.scheduler.rebalancing.account import Account, account, stage_rates
from swarmrt.scheduler.rebalancing.plan import Plan
from swarmrt.scheduler.rebalancing.rebalance import rebalance
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Peer, Swarm

IDLE: dict[Idle, str] = {
    "off": "the run has rebalancing.enabled = false: everybody stays",
    "nobody": "no process serves where it helps most (swarmrt serve --stage auto): everybody stays",
    "begins": "its trainer has just begun, and hears who is there: ask again in a moment",
    "ends": "it is about to end",
    "large": "it has too many peers to be told of here",
}


@dataclass(frozen=True)
class Outlook:
    """The word of a trainer, and what follows from it by the decision that it makes itself."""

    run: str
    version: int
    idle: Idle
    standby_share: float
    swarm: Swarm | None  # where anything is decided

    def lines(self) -> Iterator[str]:
        """Yield lines for people."""
        if self.swarm is None or not self.swarm.peers:
            why = IDLE[self.idle] if self.idle else "nobody is there yet: nothing is to be done"
            yield f"run {self.run}, step {self.version}: {why}"
            return
        swarm, (plan, sums) = self.swarm, self._decided(self.swarm)
        rates = stage_rates(swarm)
        yield (
            f"run {self.run}, step {self.version}: {sums.now:.4g} microbatches a second, which is "
            f"what stage {rates.index(sums.now)} computes"
        )
        yield from _stages(swarm, rates)
        under_way = [peer for peer in swarm.peers if peer.loading is not None]
        for peer in under_way:
            what = "to serve it" if peer.serves_when_loaded else "to stand by"
            yield f"under way: {_short(peer.name)} loads the state of stage {peer.loading}, {what}"
        if not plan:
            yield "nothing would be done now: no move is worth its cost"
            return
        yield "would be done now:"
        for who, what, why in _acts(swarm, plan):
            yield f"  {_short(who)} {what}: {printable(why)}"
        yield from _in_sum(sums)

    def to_json(self) -> dict[str, Any]:
        """Return the same as one object. Numbers that nobody knows are null."""
        found: dict[str, Any] = {"run": self.run, "step": self.version, "idle": self.idle}
        if self.swarm is None or not self.swarm.peers:
            return {**found, "stages": [], "peers": [], "plan": None, "account": None}
        swarm, (plan, sums) = self.swarm, self._decided(self.swarm)
        stages = zip(swarm.stages, stage_rates(swarm), strict=True)
        return {
            **found,
            "step_s": _known(swarm.step_s),
            "standby_share": self.standby_share,
            "stages": [
                {
                    "rate": rate,
                    "work": stage.compute,
                    "state_bytes": stage.state_bytes,
                    "gradient_bytes": stage.gradient_bytes,
                    "least_replicas": stage.least_replicas,
                }
                for stage, rate in stages
            ],
            "peers": [_peer(peer) for peer in swarm.peers],
            "plan": {
                "drops": [{"peer": d.peer, "stage": d.stage, "why": d.why} for d in plan.drops],
                "switches": [
                    {"peer": s.peer, "from": s.from_stage, "to": s.to_stage, "why": s.why}
                    for s in plan.switches
                ],
                "downloads": [
                    {
                        "peer": d.peer,
                        "stage": d.stage,
                        "standby": d.is_standby,
                        "bytes": swarm.stages[d.stage].state_bytes,
                        "why": d.why,
                    }
                    for d in plan.downloads
                ],
            },
            "account": {
                "rate": sums.now,
                "rate_switched": sums.switched,
                "rate_loaded": sums.loaded,
                "load_bytes": sums.load_bytes,
                "load_s": _known(sums.load_s),
                "step_bytes": sums.step_bytes,
                "rate_after_worst_loss": sums.after_loss,
                "rate_after_worst_loss_planned": sums.after_loss_planned,
            },
        }

    def _decided(self, swarm: Swarm) -> tuple[Plan, Account]:
        settings = Settings(standby_share=self.standby_share)
        plan = rebalance(swarm, settings)
        return plan, account(swarm, settings, plan)


def _peer(peer: Peer) -> dict[str, Any]:
    limits = peer.limits
    return {
        "peer": peer.name,
        "rate": peer.rate,
        "serving": peer.serving,
        "holds": sorted(peer.holds),
        "loading": peer.loading,
        "serves_when_loaded": peer.serves_when_loaded,
        "may_serve": None if limits.stages is None else sorted(limits.stages),
        "may_move": limits.may_move,
        "most_states": limits.most_states,
        "downlink_bytes_per_s": _known(limits.downlink_bytes_per_s),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _stages(swarm: Swarm, rates: list[float]) -> Iterator[str]:
    yield f"{'stage':>7} {'microbatches/s':>16} {'serve':>7} {'stand by':>10} {'load':>6}"
    for stage, rate in enumerate(rates):
        serving = sum(peer.serving == stage for peer in swarm.peers)
        by = sum(stage in peer.holds and peer.serving != stage for peer in swarm.peers)
        loading = sum(peer.loading == stage for peer in swarm.peers)
        yield f"{stage:>7} {rate:>16.4g} {serving:>7} {by:>10} {loading:>6}"


def _acts(swarm: Swarm, plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield who does what, and why, in the order in which it is done."""
    for drop in plan.drops:
        yield drop.peer, f"gives the state of stage {drop.stage} up", drop.why
    for switch in plan.switches:
        where = "" if switch.from_stage is None else f", and no more stage {switch.from_stage}"
        yield switch.peer, f"serves stage {switch.to_stage}{where}", switch.why
    for download in plan.downloads:
        size = swarm.stages[download.stage].state_bytes
        what = "to stand by" if download.is_standby else "to serve it"
        loads = f"loads the state of stage {download.stage} ({_size(size)}), {what}"
        yield download.peer, loads, download.why


def _in_sum(sums: Account) -> Iterator[str]:
    """Yield what all of it gains and costs."""
    gains, costs = list[str](), list[str]()
    if sums.switched != sums.now:
        gains.append(f"{_change(sums.now, sums.switched)} at once")
    if sums.loaded != sums.switched:
        gains.append(f"{_change(sums.switched, sums.loaded)} when what loads has come")
    before, after = sums.after_loss, sums.after_loss_planned
    if before is not None and after is not None and before != after:
        loss = (
            f"with the loss of whichever peer is missed most, {after:.4g} a second would be left "
            f"then, not {before:.4g}"
        )
        (gains if after > before else costs).append(loss)
    yield f"gains: {'; '.join(gains) or 'nothing yet'}"
    if sums.load_bytes:
        took = f", {sums.load_s:.3g} s of the slowest downlink" if sums.load_s < math.inf else ""
        costs.append(f"{_size(sums.load_bytes)} to load, while all serve on{took}")
    if sums.step_bytes:
        costs.append(f"{_size(sums.step_bytes)} more in each step for who stands by")
    yield f"costs: {'; '.join(costs) or 'nothing: the states are there'}"


def _change(before: float, after: float) -> str:
    share = f" ({after / before - 1:+.0%})" if before else ""
    return f"from {before:.4g} to {after:.4g} microbatches a second{share}"


def _size(size_bytes: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes:.0f} bytes" if size_bytes else "unknown size"


def _short(name: str) -> str:
    """Return the end of a peer's name, as the live view has it."""
    process, _, stage = name.partition("/")
    return f"…{printable(process[-8:])}" + (f" at stage {stage}" if stage else "")
