"""Seeded schedules of faults, and the stories that they are told as.

A scenario is a function of its seed: the swarm's shape, how bad its links and clocks are, and what
happens to whom and when. `play` runs it and checks the promises after every event. `hardships`
draws those of real sizes.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

from swarmrt.config import DEMO
from swarmrt.ids import NO_ISLAND, PeerId
from swarmrt.scheduler.events import MoveRequested
from swarmrt.scheduler.timing.intervals import MOST_BEACONS_PER_S
from swarmrt.sim.engine.links import Link, Sizes
from swarmrt.sim.engine.network import Weather
from swarmrt.sim.peer.jobs import Thread
from swarmrt.sim.peer.steward import Mover
from swarmrt.sim.swarm.liveness import Liveness
from swarmrt.sim.swarm.world import TRAINER, World

KINDS = ("kill", "drain", "pause", "cut", "break", "join", "trainer", "pause trainer", "storm")
HOLDS_NOBODY_UP = ("join", "join spare", "join mover", "request", "disk", "datagrams")
CALM = Weather()
LONG_S, SHORT_S = (0.05, 0.4), (0.001, 0.008)  # of a forward: short ones are handed over ahead
LIMIT_S = 600.0  # of virtual time: a swarm that needs longer is stuck
LONGER_S = 3600.0  # the same, with bytes on their way


@dataclass(frozen=True)
class Fault:
    at_s: float  # after the first committed step
    kind: str
    stage: int
    pick: int  # which of the stage's live peers, modulo their number
    other: int  # the same, for the other end of a cut; odd ones cut the trainer off
    seconds: float
    weather: Weather = CALM
    thread: Thread = "compute"  # that hangs
    link: Link | None = None  # of a newcomer

    def __str__(self) -> str:
        what = f"{self.kind} {self.thread}" if self.kind == "hang" else self.kind
        return f"{self.at_s:6.2f} s  {what} stage {self.stage}/{self.pick} {self.seconds:.2f} s"


@dataclass(frozen=True)
class Scenario:
    seed: int
    replicas: tuple[int, ...]
    steps: int
    microbatches: int
    eval_every: int
    checkpoint_every: int
    queue_s: float
    retained_frames: int
    skew_s: float
    drift: float
    faults: tuple[Fault, ...]
    staleness: int = 0
    fresh_steps: int = 0
    service_s: tuple[float, float] = LONG_S  # of each peer, from this range
    sizes: Sizes | None = None
    links: tuple[tuple[PeerId, Link], ...] = ()
    unlike_share: float = 0.0  # of the peers, that round differently
    by_owners: bool = False  # updates are asked for so
    hosts: tuple[tuple[int, ...], ...] = ()  # processes with several seats, by their stages
    spares: tuple[int, ...] = ()  # of each stage
    local_batch: int = 0  # microbatches in a step that a replica makes by itself; 0 for no such
    sync_steps: int = 0  # first ones in which there are none
    most_late: float = 1.0  # share of the gradients that such steps may make late
    islands: int = 1  # at the most, that routes stay in
    has_momenta: bool = False  # each replica one of its own, and no steps of its own
    every_s: float = 0.0  # seconds between two rounds; 0 for as many microbatches in each step
    movers: tuple[Mover, ...] = ()
    standby_share: float = 0.25
    rearrange_s: float = 60.0
    holds: int = 0  # microbatches that a peer's memory has room for; 0 for as many as there are
    most_beacons_per_s: float = MOST_BEACONS_PER_S  # that the trainer handles

    def story(self) -> str:
        """Return what happens, for people."""
        head = (
            f"seed {self.seed}: replicas {list(self.replicas)}, {self.steps} steps of "
            f"{self.microbatches} microbatches, {self.retained_frames} frames retained, "
            f"staleness {self.staleness} after {self.fresh_steps} steps, "
            f"forwards of {self.service_s[0]} to {self.service_s[1]} s"
        )
        links = [f"{host} at {link}" for host, link in self.links]
        sizes = [str(self.sizes)] if self.sizes is not None else []
        if self.spares:
            sizes.append(f"spares {list(self.spares)}")
        if self.unlike_share:
            asked = ", owners update" if self.by_owners else ""
            sizes.append(f"{self.unlike_share:.0%} of the peers round differently{asked}")
        if self.local_batch:
            after = f"after {self.sync_steps} steps"
            sizes.append(f"each replica steps by itself every {self.local_batch}, {after}")
            sizes.append(f"{self.most_late:.0%} of the gradients may be late")
        if self.islands > 1:
            sizes.append(f"up to {self.islands} islands")
        if self.every_s:
            sizes.append(f"a round every {self.every_s} s")
        if self.has_momenta:
            sizes.append("each replica has a momentum of its own")
        if self.holds:
            sizes.append(f"peers hold {self.holds} microbatches")
        if self.most_beacons_per_s < MOST_BEACONS_PER_S:
            sizes.append(f"at most {self.most_beacons_per_s} beacons a second")
        if self.hosts:
            sizes.append(f"and processes with seats at {list(map(list, self.hosts))}")
        if self.movers:
            again = f"standby {self.standby_share}, arranged again each {self.rearrange_s} s"
            sizes.append(f"movers for {'; '.join(map(str, self.movers))}; {again}")
        return "\n".join([head, *sizes, *links, *map(str, self.faults)])

    @property
    def averaging(self) -> dict[str, object]:
        """Return the section of the configuration."""
        if self.has_momenta:
            return {"strategy": DEMO}
        if not self.local_batch:
            return {}
        return {
            "strategy": "async",
            "local_batch": self.local_batch,
            "sync_steps": self.sync_steps,
            "most_late": self.most_late,
            "every_s": self.every_s,
            "islands": self.islands,
        }

    def rounding_of(self, peer: PeerId) -> str:
        """Return how a peer rounds."""
        drawn = random.Random(f"{self.seed} {peer}").random()
        return " otherwise" if drawn < self.unlike_share else ""

    def island_of(self, peer: PeerId) -> int:
        """Return the island that a peer asks for; every other one asks for none."""
        rng = random.Random(f"{self.seed} {peer} island")
        asked = rng.randrange(self.islands)
        return asked if self.islands > 1 and rng.random() < 1 / 2 else NO_ISLAND


def draw(seed: int) -> Scenario:
    """Draw a scenario. Every fourth is of short computations: then there are more, and less
    time."""
    scenario = _draw_long(seed)
    if seed % 4 != 3:
        return scenario
    rng = random.Random(f"short {seed}")
    return replace(
        scenario,
        service_s=SHORT_S,
        microbatches=rng.randint(8, 32),
        queue_s=rng.choice((0.03, 5.0)),
        faults=tuple(replace(fault, at_s=fault.at_s / 4) for fault in scenario.faults),
    )


def _draw_long(seed: int) -> Scenario:
    rng = random.Random(seed)
    replicas = tuple(rng.choice((1, 2, 2, 3)) for _ in range(rng.choice((1, 2, 3))))
    faults = sorted(
        (_draw_fault(rng, len(replicas)) for _ in range(rng.randint(1, 6))),
        key=lambda fault: fault.at_s,
    )
    return Scenario(
        seed=seed,
        replicas=replicas,
        steps=rng.randint(2, 5),
        microbatches=rng.randint(1, 5),
        eval_every=rng.choice((0, 1, 2)),
        checkpoint_every=rng.choice((0, 1, 2)),
        queue_s=rng.choice((0.3, 5.0)),
        retained_frames=rng.choice((0, 3, 1000)),
        skew_s=rng.choice((0.0, 1000.0)),
        drift=rng.choice((0.0, 0.02)),
        faults=tuple(faults),
        staleness=rng.choice((0, 1)),
        fresh_steps=rng.choice((0, 0, 1, 2)),
    )


def _draw_fault(rng: random.Random, num_stages: int) -> Fault:
    kind = rng.choice(KINDS)
    weather = CALM
    if kind == "storm":
        weather = Weather(
            lost=rng.choice((0.0, 0.05, 0.2)),
            doubled=rng.choice((0.0, 0.3)),
            late=rng.choice((0.0, 0.3)),
            late_s=rng.uniform(0.1, 2.0),
        )
    return Fault(
        at_s=rng.uniform(0, 10),
        kind=kind,
        stage=rng.randrange(num_stages),
        pick=rng.randrange(4),
        other=rng.randrange(8),
        seconds=rng.uniform(0.2, 8.0),
        weather=weather,
    )


@dataclass(frozen=True)
class Outcome:
    """The outcome of one scenario: what it covered."""

    covered: Counter[str]  # fences, recoveries, releases, …; and faults by kind


def play(scenario: Scenario) -> Outcome:
    """Run it. Raises AssertionError or RunError when a promise is broken."""
    world = World(
        scenario.replicas,
        scenario.seed,
        steps=scenario.steps,
        microbatches=scenario.microbatches,
        eval_every=scenario.eval_every,
        eval_microbatches=2,
        checkpoint_every=scenario.checkpoint_every,
        queue_s=scenario.queue_s,
        retained_frames=scenario.retained_frames,
        staleness=scenario.staleness,
        fresh_steps=scenario.fresh_steps,
        skew_s=scenario.skew_s,
        drift=scenario.drift,
        service_s=scenario.service_s,
        sizes=scenario.sizes,
        links=dict(scenario.links),
        rounding_of=scenario.rounding_of if scenario.unlike_share else None,
        by_owners=scenario.by_owners,
        hosts=scenario.hosts,
        spares=scenario.spares,
        averaging=scenario.averaging,
        island_of=scenario.island_of,
        movers=scenario.movers,
        rebalancing={
            "standby_share": scenario.standby_share,
            "period_s": scenario.rearrange_s,
        },
        holds=scenario.holds,
        most_beacons_per_s=scenario.most_beacons_per_s,
    )
    world.run_until(version=1)
    covered: Counter[str] = Counter()
    for fault in scenario.faults:
        world.clock.after(fault.at_s, partial(_strike, world, fault, covered))
    if scenario.sizes is not None:
        Liveness(world)
    world.run(limit_s=LIMIT_S if scenario.sizes is None else LONGER_S)
    last = {report.version: report for report in world.disk.steps}
    assert world.trainer.process.now >= 0 and max(last) <= scenario.steps
    assert scenario.steps in world.disk.checkpoints, "the last version was not saved"
    covered.update(world.disk.recoveries)
    covered["rollbacks"] += len(world.disk.rollbacks)
    covered["epochs"] += world.disk.epoch - 1
    covered["steps"] += len(world.disk.steps)
    covered["unlike"] += len(world.disk.unlike)
    covered["islands anew"] += len(world.disk.islands)
    covered.update(f"move {move.what}" for move in world.disk.moves)
    covered["spares let in"] += len(world.spares_let_in())
    return Outcome(covered)


def _strike(world: World, fault: Fault, covered: Counter[str]) -> None:
    """Do it, if there is anybody to do it to."""
    _do(world, fault, covered)
    if fault.kind not in HOLDS_NOBODY_UP:
        world.at_change()
        world.clock.after(fault.seconds, world.at_change)


def _do(world: World, fault: Fault, covered: Counter[str]) -> None:
    if world.trainer.stopped is not None:
        return
    live = world.live(fault.stage)
    victim = live[fault.pick % len(live)] if live else None
    covered[fault.kind] += 1
    match fault.kind:
        case "kill" | "drain" if victim is not None:
            stages = [seat.settings.stage for seat in world.seats(victim)]
            (world.kill if fault.kind == "kill" else world.drain)(victim)
            for stage in stages:
                world.clock.after(fault.seconds, partial(_replace, world, stage))
        case "pause" if victim is not None:
            world.pause(victim, fault.seconds)
        case "cut" if victim is not None:
            world.network.cut(victim, _other_end(world, fault, victim), fault.seconds)
        case "break" if victim is not None:
            world.network.break_for(victim, _other_end(world, fault, victim))
        case "owner pauses" | "owner pauses gently" if victim is not None:
            world.take_device(victim, fault.seconds, gently=fault.kind.endswith("gently"))
        case "join" | "join spare":
            world.spawn(fault.stage, link=fault.link, is_spare=fault.kind == "join spare")
        case "join mover":
            world.spawn_mover()
        case "request" if world.stewards:
            asked = list(world.stewards)[fault.pick % len(world.stewards)]
            world.trainer.process.feed(MoveRequested(asked, fault.stage, fault.seconds))
        case "pace" if victim is not None:
            world.change_pace(victim, 4.0 if fault.other % 2 else 0.25)
        case "hang" if victim is not None:
            world.hang(victim, fault.thread, fault.seconds)
        case "disk":
            world.trainer.hang_saving(fault.seconds)
        case "radio" if victim is not None:
            world.network.stall(victim, fault.seconds)
        case "radio trainer":
            world.network.stall(TRAINER, fault.seconds)
        case "directory":
            world.directory_fails(fault.seconds)
        case "mass death":
            _kill_many(world, fault)
        case "trainer":
            world.kill_trainer()
            world.clock.after(fault.seconds, world.resume_trainer)
        case "pause trainer":
            world.pause(TRAINER, fault.seconds)
        case "storm" | "datagrams":
            world.network.weather = fault.weather
            world.clock.after(fault.seconds, partial(_clear_up, world))


def _other_end(world: World, fault: Fault, victim: PeerId) -> PeerId:
    others = [p for stage in range(world.num_stages) for p in world.live(stage) if p != victim]
    if fault.other % 2 or not others:
        return TRAINER
    return others[fault.other % len(others)]


def _replace(world: World, stage: int) -> None:
    """A stage without anybody gets a replacement, sooner or later."""
    staying = [peer for peer in world.live(stage) if not world.peers[peer].drained]
    if world.trainer.stopped is None and not staying:
        world.spawn(stage)


def _kill_many(world: World, fault: Fault) -> None:
    """Two thirds of all peers at once."""
    live = [peer for stage in range(world.num_stages) for peer in world.live(stage)]
    turned = live[fault.pick :] + live[: fault.pick]
    for peer in turned[: -(-2 * len(live) // 3)]:
        world.kill(peer)
    for stage in range(world.num_stages):
        world.clock.after(fault.seconds, partial(_replace, world, stage))


def _clear_up(world: World) -> None:
    world.network.weather = CALM
