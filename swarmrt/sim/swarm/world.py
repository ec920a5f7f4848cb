"""A whole swarm in one process and in virtual time: the production cores, to the byte
reproducible from a seed, and checked as it runs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from swarmrt.config import DEMO, RunConfig
from swarmrt.errors import RunError
from swarmrt.ids import NO_ISLAND, MicrobatchId, PeerId, peer_of, seat_of
from swarmrt.scheduler.events import PeersSeen, StopRequested
from swarmrt.scheduler.instructions import Announce
from swarmrt.scheduler.settings import PeerSettings, StewardSettings, TrainerSettings
from swarmrt.scheduler.timing.intervals import MOST_BEACONS_PER_S, directory_s, record_life_s
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.scheduler.wiring.policy import BUILT_IN
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.links import Link, Sizes, Wires
from swarmrt.sim.engine.network import Network, Weather
from swarmrt.sim.engine.process import Process
from swarmrt.sim.peer.computing import TOKENS
from swarmrt.sim.peer.jobs import Device, Thread
from swarmrt.sim.peer.peer import FRAME_BYTES, SimulatedPeer
from swarmrt.sim.peer.steward import Mover, SimulatedSteward
from swarmrt.sim.swarm.dishonest import HONEST, Habit
from swarmrt.sim.swarm.fetching import History
from swarmrt.sim.swarm.trainer import Disk, SimulatedTrainer

RECORD_TTL_S = 15.0
DIRECTORY_S = 1.0  # between two reads of the directory by one process
TRAINER = PeerId("trainer")


def _nothing() -> None:
    """Do nothing, where nobody wants to know."""


class World:
    """A world with one trainer, `replicas[s]` peers of each stage s, and `spares[s]` spares.

    Each of the `movers` is a process that serves where it helps most, by `rebalancing` as in the
    configuration.

    Each of the `hosts` is a process more, with a seat at each of its stages, which share its device
    and its link.

    `service_s` is drawn for each peer from this range of seconds of a forward; every process's
    clock differs from the others by up to `skew_s` and runs up to `drift` faster or slower.

    A microbatch is so much `work` at each stage, for processes that serve where they help most.

    Senders are wired by this `policy`. Each peer `holds` so many microbatches between forward and
    backward; 0 for as many as there are.

    The trainer waits for `needed` replicas of each stage; without, for all that there are at first.

    The trainer handles `most_beacons_per_s`: with more peers than that allows each beacons less
    often.

    Unless it `is_checked`, no process checks its invariants or remembers anything: it is faster.

    Peers of another `rounding_of` make other weights of a gradient. `by_owners` asks from the
    start for updates by the parts' owners.

    With `averaging`, as in the configuration, replicas make steps of their own, or have a momentum
    each. Each asks for the island that `island_of` says, if it says any.

    With `sizes`, gradients, activations and states take the time that their bytes need on the
    `links` of the hosts: each process is at a host of its own name. Without, links have a latency
    only.
    """

    def __init__(
        self,
        replicas: Sequence[int],
        seed: int,
        *,
        steps: int = 5,
        microbatches: int = 6,
        eval_every: int = 2,
        eval_microbatches: int = 3,
        checkpoint_every: int = 2,
        service_s: tuple[float, float] = (0.05, 0.4),
        queue_s: float = 5.0,
        retained_frames: int = 1000,
        staleness: int = 0,
        fresh_steps: int = 0,
        weather: Weather = Weather(),  # noqa: B008 - it is frozen
        skew_s: float = 0.0,
        drift: float = 0.0,
        not_finite: Literal["stop", "skip"] = "stop",
        sizes: Sizes | None = None,
        links: Mapping[PeerId, Link] | None = None,
        rounding_of: Callable[[PeerId], str] | None = None,
        by_owners: bool = False,
        hosts: Sequence[tuple[int, ...]] = (),
        spares: Sequence[int] = (),
        averaging: Mapping[str, Any] | None = None,
        movers: Sequence[Mover] = (),
        rebalancing: Mapping[str, Any] | None = None,
        policy: str = BUILT_IN,
        island_of: Callable[[PeerId], int] | None = None,
        needed: Sequence[int] | None = None,
        is_checked: bool = True,
        holds: int = 0,
        work: Sequence[float] = (),
        most_beacons_per_s: float = MOST_BEACONS_PER_S,
    ) -> None:
        self.clock = Clock()
        self.rng = random.Random(seed)
        self.sizes = sizes
        self.is_unlike = rounding_of is not None or by_owners
        self._rounding_of = rounding_of or (lambda _: "")
        self._island_of = island_of or (lambda _: NO_ISLAND)
        wires = Wires(self.clock, links or {}) if sizes is not None else None
        how = dict(averaging or {})
        by_signs = {"kind": "sgd", "clip_norm": 0.0} if how.get("strategy") == DEMO else {}
        self.network = Network(self.clock, self.rng, weather, wires)
        self.num_stages = len(replicas)
        self.steps, self.microbatches = steps, microbatches
        self.peers: dict[PeerId, SimulatedPeer] = {}
        self.closed: list[SimulatedPeer] = []  # seats that have made room for others of their name
        self.stewards: dict[PeerId, SimulatedSteward] = {}
        self.disk = Disk()
        if by_owners:
            self.disk.unlike_stages = tuple(range(len(replicas)))
        self.trainers: list[SimulatedTrainer] = []
        self._service_s, self._seed, self._holds = service_s, seed, holds
        self._work = work or [1.0] * len(replicas)
        self._most_beacons_per_s = most_beacons_per_s
        frame_bytes = FRAME_BYTES if sizes is None else sizes.activation_bytes
        self.config = RunConfig.model_validate(
            {
                "run": {"seed": seed % (1 << 63), "steps": steps},
                "model": {"sequence": TOKENS},
                "stages": {"count": len(replicas)},
                "batch": {"microbatch": 1, "microbatches": microbatches},
                "optimizer": {
                    "staleness": staleness,
                    "fresh_steps": fresh_steps,
                    "not_finite": not_finite,
                    **by_signs,
                },
                "averaging": how,
                "rebalancing": dict(rebalancing or {}),
                "evaluation": {"every_steps": eval_every, "microbatches": eval_microbatches},
                "links": {
                    "queue_s": queue_s,
                    "retain_bytes": retained_frames * frame_bytes,
                    "record_ttl_s": RECORD_TTL_S,
                },
                "checkpoint": {"every_steps": checkpoint_every},
                "wiring": {"policy": policy},
            }
        )
        self.eval_microbatches = eval_microbatches
        self._skew_s, self._drift = skew_s, drift
        self.at_change: Callable[[], None] = _nothing  # something has befallen somebody, or is over
        self.at_event: Callable[[], None] = _nothing  # that has happened while it runs
        self._at_failpoint: Callable[[Process, str], None] | None = None
        self._is_checked = is_checked
        self._directory_fails_until = 0.0
        self._directory: dict[int, dict[PeerId, Announce]] = {s: {} for s in range(len(replicas))}
        self._num_hosts = 0
        shared = Counter(stage for stages in hosts for stage in stages)
        if needed is None:
            needed = [max(1, number + shared[stage]) for stage, number in enumerate(replicas)]
        self._start_trainer(tuple(needed), resume=False)
        for stage, number in enumerate(replicas):
            for _ in range(number):
                self.spawn(stage, after_s=self.rng.uniform(0, 3))
        for stages in hosts:
            self.spawn_host(stages, after_s=self.rng.uniform(0, 3))
        for stage, number in enumerate(spares):
            for _ in range(number):
                self.spawn(stage, after_s=self.rng.uniform(0, 3), is_spare=True)
        for mover in movers:
            self.spawn_mover(mover, after_s=self.rng.uniform(0, 3))

    @property
    def trainer(self) -> SimulatedTrainer:
        """The newest incarnation of the trainer."""
        return self.trainers[-1]

    # ------------------------------------------------------------------ who comes and goes

    def _start_trainer(self, needed: tuple[int, ...], *, resume: bool) -> None:
        self.disk.epoch += 1
        start = max(self.disk.checkpoints, default=0) if resume else 0
        settings = TrainerSettings.of(
            self.config,
            TRAINER,
            self.disk.epoch,
            needed=needed,
            start_version=start,
            start_digests=self.disk.digests(start),
            resume=resume,
            secret=f"{self._seed % (1 << 128):032x}",
            by_owners=self.disk.unlike_stages,
            told=self.disk.told(self.microbatches),
            most_beacons_per_s=self._most_beacons_per_s,
        )
        trainer = SimulatedTrainer(
            settings,
            self.clock,
            self.network,
            self._snapshot,
            self.disk,
            *self._clock_error(),
            self.sizes,
        )
        trainer.process.at_failpoint = self._at_failpoint
        trainer.process.is_checked = self._is_checked
        self.trainers.append(trainer)
        trainer.start()
        self._read_directory(trainer.process)

    def kill_trainer(self) -> None:
        self.trainer.process.alive = False
        self.network.disconnect(TRAINER)

    def resume_trainer(self) -> None:
        """A new incarnation, from what its disk holds."""
        if self.trainer.process.alive or self.trainer.stopped is not None:
            return
        self._start_trainer((1,) * self.num_stages, resume=True)

    def spawn(
        self,
        stage: int,
        after_s: float = 0.0,
        habit: Habit = HONEST,
        link: Link | None = None,
        service_s: float | None = None,
        is_spare: bool = False,
    ) -> PeerId:
        """A peer that starts so much later."""
        number = sum(p.settings.stage == stage for p in self.peers.values())
        peer_id = PeerId(f"s{stage}p{number}")
        if link is not None:
            assert self.network.wires is not None, "links are for worlds with sizes"
            self.network.wires.links[peer_id] = link
        self._seat(peer_id, stage, after_s, habit, service_s, self._clock_error, None, is_spare)
        return peer_id

    def spawn_host(
        self, stages: Sequence[int], after_s: float = 0.0, *, is_spare: bool = False
    ) -> PeerId:
        """A process with a seat at each of these stages, that starts so much later."""
        host = PeerId(f"h{self._num_hosts}")
        self._num_hosts += 1
        device, error = Device(self.clock, self.rng), self._clock_error()
        service_s = self.rng.uniform(*self._service_s)
        for stage in stages:
            name = seat_of(host, stage)
            self._seat(name, stage, after_s, HONEST, service_s, lambda: error, device, is_spare)
        return host

    def spawn_mover(
        self,
        mover: Mover | None = None,
        after_s: float = 0.0,
        *,
        service_s: float | None = None,
    ) -> PeerId:
        """A process that serves where it helps most, one of all stages by default, and starts so
        much later."""
        mover = mover or Mover(tuple(range(self.num_stages)), 2)
        name = PeerId(f"m{len(self.stewards)}")
        device, error = Device(self.clock, self.rng), self._clock_error()
        pace_s = self.rng.uniform(*self._service_s) if service_s is None else service_s

        def open_seat(stage: int) -> None:
            seat = seat_of(name, stage)
            earlier = self.peers.get(seat)
            self.closed += [earlier] if earlier is not None else []
            its_s = pace_s * self._work[stage]
            self._seat(seat, stage, 0.0, HONEST, its_s, lambda: error, device, is_spare=True)

        def close_seat(stage: int, reason: str) -> None:
            seat = self.peers.get(seat_of(name, stage))
            if seat is not None and seat.process.alive:
                seat.drained = True
                seat.process.feed(StopRequested(reason))

        settings = StewardSettings(
            name, TRAINER, self.num_stages, mover.stages, mover.rooms, is_pinned=mover.is_pinned
        )
        around = (self.clock, self.network, self.rng, open_seat, close_seat, self.kill)
        steward = self.stewards[name] = SimulatedSteward(settings, *around, *error)
        steward.process.at_failpoint = self._at_failpoint
        self.clock.after(after_s, steward.start)
        return name

    def _seat(
        self,
        peer_id: PeerId,
        stage: int,
        after_s: float,
        habit: Habit,
        service_s: float | None,
        clock_error: Callable[[], tuple[float, float]],
        device: Device | None,
        is_spare: bool,
    ) -> None:
        gradient_bytes = self._seed % 3 * (28 << 20)  # one part a member, or several
        if self.sizes is not None:
            gradient_bytes = self.sizes.gradient_bytes
        state_bytes = 3 * gradient_bytes if self.sizes is None else self.sizes.state_bytes
        settings = PeerSettings.of(
            self.config,
            peer_id,
            TRAINER,
            stage,
            gradient_bytes=gradient_bytes,
            update_bytes=state_bytes,
            is_spare=is_spare,
            island=self._island_of(peer_id),
            holds=self._holds,
        )
        peer = SimulatedPeer(
            settings,
            self.clock,
            self.network,
            self.rng,
            self._announce,
            self._snapshot,
            self._stopped,
            self.rng.uniform(*self._service_s) if service_s is None else service_s,
            *clock_error(),
            self.sizes,
            device,
        )
        peer.process.at_failpoint = self._at_failpoint
        peer.process.is_checked = self._is_checked
        peer.habit = habit
        peer.state.rounding = self._rounding_of(peer_id)
        self.peers[peer_id] = peer
        self.clock.after(after_s, peer.start)

    def _clock_error(self) -> tuple[float, float]:
        if not self._skew_s and not self._drift:
            return 0.0, 1.0
        return self.rng.uniform(0, self._skew_s), 1 + self.rng.uniform(-self._drift, self._drift)

    def live(self, stage: int) -> list[PeerId]:
        """Peers that run, or are paused."""
        return [
            peer_id
            for peer_id, peer in self.peers.items()
            if peer.settings.stage == stage and peer.process.alive
        ]

    def seats(self, peer: PeerId) -> list[SimulatedPeer]:
        """Return what a process holds, or the process of a seat."""
        host = peer_of(peer)
        return [one for name, one in self.peers.items() if peer_of(name) == host]

    def spares_let_in(self) -> set[PeerId]:
        """Return the spares that have taken part in a commit."""
        digests = (stage for report in self.disk.steps for stage in report.digests)
        members = {peer for stage in digests for peer, _ in stage}
        return {peer for peer in members if self.peers[peer].settings.is_spare}

    def drain(self, peer: PeerId) -> None:
        """Ask its process to leave, as by SIGTERM."""
        for seat in self.seats(peer):
            seat.drained = True
            seat.process.feed(StopRequested("drained"))
        steward = self.stewards.get(peer_of(peer))
        if steward is not None:
            steward.process.feed(StopRequested("drained"))

    def pause(self, peer: PeerId, seconds: float) -> None:
        """Stop it for a while, as by SIGSTOP and SIGCONT."""
        held = [self.trainer.process] if peer == TRAINER else self._processes(peer)
        for one in held:
            one.pause(seconds)
        wires, host = self.network.wires, peer_of(peer)
        if wires is not None:
            wires.hold(host)
            self.clock.after(seconds, lambda: wires.let_go(host))

    def change_pace(self, peer: PeerId, times: float) -> None:
        """Let whatever its process computes take so many times as long from now on."""
        for seat in self.seats(peer):
            seat.jobs.service_s *= times

    def take_device(self, peer: PeerId, seconds: float, *, gently: bool = False) -> None:
        """Have its owner pause a process, and let it go on after so long."""
        for seat in self.seats(peer):
            seat.pause(gently=gently)
        self.clock.after(seconds, partial(self.lend_device, peer))

    def lend_device(self, peer: PeerId) -> None:
        """Have its owner let a process go on."""
        for seat in self.seats(peer):
            seat.resume()

    def hang(self, peer: PeerId, thread: Thread, seconds: float) -> None:
        """Hang one of its threads: the process beacons on."""
        self.peers[peer].jobs.hang(thread, seconds)

    def directory_fails(self, seconds: float) -> None:
        """Let no read succeed meanwhile; what is written is tried again until it is over."""
        until = self.clock.now + seconds
        self._directory_fails_until = max(until, self._directory_fails_until)

    @property
    def is_directory_away(self) -> bool:
        return self._directory_fails_until > self.clock.now

    def kill(self, peer: PeerId) -> None:
        """Stop its process at once; the others see its links break, its record expires later."""
        live = [seat for seat in self.seats(peer) if seat.process.alive]
        processes = [process for process in self._processes(peer) if process.alive]
        for process in processes:
            process.alive = False
        if not processes:
            return
        self.network.disconnect(peer_of(peer))
        for seat in live:
            self._expire_later(seat)

    def _processes(self, peer: PeerId) -> list[Process]:
        """Return what runs in a process: its seats, and its steward if it has one."""
        steward = self.stewards.get(peer_of(peer))
        return [seat.process for seat in self.seats(peer)] + (
            [steward.process] if steward is not None else []
        )

    def _stopped(self, peer: PeerId) -> None:
        """End a seat that has stopped, and its process with the last one."""
        seat, steward = self.peers[peer], self.stewards.get(peer_of(peer))
        if [process for process in self._processes(peer) if process.alive] == [seat.process]:
            self.kill(peer)
            return
        seat.process.alive = False
        self.network.close_door(peer)
        self._expire_later(seat)
        if steward is not None:
            steward.closed(seat.settings.stage)

    def _expire_later(self, seat: SimulatedPeer) -> None:
        life_s = record_life_s(RECORD_TTL_S, seat.renews_s)
        self.clock.after(life_s, partial(self._expire, seat))

    def _expire(self, seat: SimulatedPeer) -> None:
        """Forget its record, unless another one has its name by now."""
        if self.peers[seat.settings.me] is seat:
            self._directory[seat.settings.stage].pop(seat.settings.me, None)

    # ------------------------------------------------------------------ running

    @property
    def at_failpoint(self) -> Callable[[Process, str], None] | None:
        """Called with every process that passes a failpoint, and its name."""
        return self._at_failpoint

    @at_failpoint.setter
    def at_failpoint(self, called: Callable[[Process, str], None]) -> None:
        self._at_failpoint = called
        of_peers = [peer.process for peer in self.peers.values()]
        of_stewards = [steward.process for steward in self.stewards.values()]
        for process in (self.trainer.process, *of_peers, *of_stewards):
            process.at_failpoint = called

    def run(self, limit_s: float = 3600.0) -> None:
        """Run until the trainer stops. Raises RunError when it stops with an error, or not at
        all."""
        while self.trainer.stopped is None:
            if not self.clock.step() or self.clock.now > limit_s:
                raise RunError(f"the swarm is stuck at {self.clock.now:.1f} s: {self.state()}")
            self.at_event()
        if self.trainer.stopped.error:
            raise RunError(self.trainer.stopped.reason)
        self.check()

    def run_until(self, version: int) -> None:
        """Run until that version is committed."""
        while not any(report.version >= version for report in self.disk.steps):
            if not self.clock.step() or self.trainer.stopped is not None:
                raise RunError(f"version {version} was never committed")

    def check(self) -> None:
        """Exactly once, and equal replicas (promises P1 and P2)."""
        for report in self.disk.steps:
            assert report.digests_equal, f"replicas differ at version {report.version}"
        for peer in (*self.peers.values(), *self.closed):
            self._check_history(str(peer.settings.me), peer.history)
        for version, states in self.disk.checkpoints.items():
            for stage, history in enumerate(states):
                assert len(history) == version
                self._check_history(f"checkpoint {version} of stage {stage}", history)

    def _check_history(self, whose: str, history: History) -> None:
        for step, update in enumerate(history):
            applied = sorted((name.split()[0], halves) for name, halves in update)
            sizes = self.disk.sizes.get(step, {self.microbatches})
            if step in self.disk.skipped:
                sizes = {0}
            expected = [sorted((str(MicrobatchId(step, i)), 2) for i in range(n)) for n in sizes]
            assert applied in expected, f"{whose} applied {update} as step {step}"

    def log(self) -> dict[str, list[dict[str, object]]]:
        """Return what every process recorded, by name."""
        logs = {f"trainer-{i}": t.process.log() for i, t in enumerate(self.trainers)}
        logs |= {str(peer_id): peer.process.log() for peer_id, peer in self.peers.items()}
        logs |= {str(name): steward.process.log() for name, steward in self.stewards.items()}
        closed = {f"{p.settings.me} before {n}": p.process.log() for n, p in enumerate(self.closed)}
        return logs | closed

    def state(self) -> str:
        """Return what may explain why nothing goes on."""
        core = self.trainer.process.core
        assert isinstance(core, TrainerCore)
        return f"{core.run.phase} at version {core.run.version}"

    # ------------------------------------------------------------------ the directory

    def _announce(self, peer: PeerId, stage: int, announce: Announce) -> None:
        away_s = self._directory_fails_until - self.clock.now
        if away_s > 0:
            self.clock.after(away_s, lambda: self._announce(peer, stage, announce))
            return
        if not self.peers[peer].process.alive and announce.status != "leaving":
            return
        self._directory[stage][peer] = announce

    def _read_directory(self, process: Process) -> None:
        """The trainer sees all that joins or serves."""
        if not process.alive:
            return
        for stage in () if self.is_directory_away else range(self.num_stages):
            records = self._directory[stage].items()
            seen = (peer for peer, record in records if record.status in ("joining", "serving"))
            process.feed(PeersSeen(stage, tuple(sorted(seen))))
        pause_s = directory_s(sum(map(len, self._directory.values())), DIRECTORY_S)
        self.clock.after(pause_s, lambda: self._read_directory(process))

    def _snapshot(self, donor: PeerId, stage: int, version: int) -> History | None:
        if donor == TRAINER:
            offered = self.trainer.process.alive and self.trainer.offered == version
            return self.disk.checkpoints[version][stage] if offered else None
        peer = self.peers[donor]
        if not peer.process.alive or peer.process.paused or peer.settings.stage != stage:
            return None
        return peer.state.snapshots.get(version)
