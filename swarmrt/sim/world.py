"""A whole swarm in one process and in virtual time: the production cores, to the byte
reproducible from a seed, and checked as it runs."""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarmrt.errors import RunError
from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.scheduler.events import PeerLost, PeersSeen, StopRequested
from swarmrt.scheduler.instructions import Announce
from swarmrt.scheduler.peer import PeerSettings
from swarmrt.scheduler.trainer import TrainerSettings
from swarmrt.sim.clock import Clock
from swarmrt.sim.network import Network
from swarmrt.sim.peer import History, SimulatedPeer
from swarmrt.sim.process import Process
from swarmrt.sim.trainer import SimulatedTrainer

RECORD_TTL_S = 15.0
DIRECTORY_S = 1.0  # between two reads of the directory by one process
TRAINER = PeerId("trainer")


class World:
    """One trainer and `replicas[s]` peers of each stage s.

    `service_s` is drawn for each peer from this range of seconds of a forward.
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
    ) -> None:
        self.clock = Clock()
        self.rng = random.Random(seed)
        self.network = Network(self.clock, self.rng)
        self.num_stages = len(replicas)
        self.peers: dict[PeerId, SimulatedPeer] = {}
        self._service_s, self._queue_s, self._seed = service_s, queue_s, seed
        self._directory: dict[int, dict[PeerId, Announce]] = {s: {} for s in range(len(replicas))}
        settings = TrainerSettings(
            me=TRAINER,
            seed=seed,
            epoch=1,
            start_version=0,
            steps=steps,
            microbatches=microbatches,
            eval_every=eval_every,
            eval_microbatches=eval_microbatches,
            checkpoint_every=checkpoint_every,
            needed=tuple(replicas),
            start_digests=(),
            record_ttl_s=RECORD_TTL_S,
        )
        self.trainer = SimulatedTrainer(settings, self.clock, self.network, self._snapshot)
        self.trainer.start()
        self._read_directory(TRAINER)
        for stage, number in enumerate(replicas):
            for _ in range(number):
                self.spawn(stage, after_s=self.rng.uniform(0, 3))

    def spawn(self, stage: int, after_s: float = 0.0) -> PeerId:
        """A peer that starts so much later."""
        peer_id = PeerId(f"s{stage}p{sum(p.settings.stage == stage for p in self.peers.values())}")
        settings = PeerSettings(
            me=peer_id,
            trainer=TRAINER,
            stage=stage,
            num_stages=self.num_stages,
            seed=self._seed,
            queue_s=self._queue_s,
            record_ttl_s=RECORD_TTL_S,
            gradient_bytes=self._seed % 3 * (100 << 20),  # one part a member, or several
        )
        peer = SimulatedPeer(
            settings,
            self.clock,
            self.network,
            self.rng,
            self._announce,
            self._snapshot,
            self.kill,
            self.rng.uniform(*self._service_s),
        )
        self.peers[peer_id] = peer
        self.clock.after(after_s, peer.start)
        self.clock.after(after_s, lambda: self._read_directory(peer_id))
        return peer_id

    def drain(self, peer: PeerId) -> None:
        """It is asked to leave, as by SIGTERM."""
        self.peers[peer].process.feed(StopRequested("drained"))

    def kill(self, peer: PeerId) -> None:
        """It stops at once; the others see its links break, its record expires later."""
        self.peers[peer].process.alive = False
        self.network.disconnect(peer)
        for process in self._processes():
            if process.me != peer:
                self._tell_lost(process, peer)
        self.clock.after(RECORD_TTL_S, lambda: self._expire(peer))

    def _expire(self, peer: PeerId) -> None:
        self._directory[self.peers[peer].settings.stage].pop(peer, None)

    def _tell_lost(self, process: Process, peer: PeerId) -> None:
        """What the dead one sent arrives before the end of its link."""
        seen_at = self.network.last_arrival(peer, process.me) + self.rng.uniform(0, 0.5)
        self.clock.at(seen_at, lambda: process.feed(PeerLost(peer, "killed")))

    def run(self, limit_s: float = 3600.0) -> None:
        """Until the trainer stops. Raises RunError when it stops with an error, or not at all."""
        while self.trainer.stopped is None:
            if not self.clock.step() or self.clock.now > limit_s:
                raise RunError(f"the swarm is stuck at {self.clock.now:.1f} s")
        if self.trainer.stopped.error:
            raise RunError(self.trainer.stopped.reason)
        self.check()

    def run_until(self, version: int) -> None:
        """Until that version is committed."""
        while not any(report.version >= version for report in self.trainer.steps):
            if not self.clock.step() or self.trainer.stopped is not None:
                raise RunError(f"version {version} was never committed")

    def check(self) -> None:
        """Exactly once, and equal replicas (promises P1 and P2)."""
        for report in self.trainer.steps:
            assert report.digests_equal, f"replicas differ at version {report.version}"
        for peer_id, peer in self.peers.items():
            for step, update in enumerate(peer.history):
                names = (
                    str(MicrobatchId(step, i)) for i in range(self.trainer.settings.microbatches)
                )
                expected = tuple(sorted((name, 1) for name in names))
                assert update == expected, f"{peer_id} applied {update} as step {step}"

    def log(self) -> dict[PeerId, list[dict[str, object]]]:
        """What every process recorded."""
        return {process.me: process.log for process in self._processes()}

    def _processes(self) -> list[Process]:
        return [self.trainer.process, *(peer.process for peer in self.peers.values())]

    def _announce(self, peer: PeerId, stage: int, announce: Announce) -> None:
        self._directory[stage][peer] = announce

    def _read_directory(self, reader: PeerId) -> None:
        """The trainer sees all that joins or serves; a peer sees who serves the next stage."""
        if reader == TRAINER:
            process = self.trainer.process
            stages, statuses = range(self.num_stages), {"joining", "serving"}
        else:
            process = self.peers[reader].process
            stage = self.peers[reader].settings.stage + 1
            stages, statuses = range(stage, min(stage + 1, self.num_stages)), {"serving"}
        if not process.alive:
            return
        for stage in stages:
            records = self._directory[stage]
            seen = tuple(sorted(p for p, record in records.items() if record.status in statuses))
            process.feed(PeersSeen(stage, seen))
        self.clock.after(DIRECTORY_S, lambda: self._read_directory(reader))

    def _snapshot(self, donor: PeerId, version: int) -> History | None:
        peer = self.peers[donor]
        return peer.snapshots.get(version) if peer.process.alive else None
