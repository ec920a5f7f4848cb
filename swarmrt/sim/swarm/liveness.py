"""The promise that a run goes on: whenever each stage has one replica that can be reached and that
works, the next version is committed within a bound.

The bound follows from the scenario: how long the step takes that may have to be computed again, how
long its bytes are on the slowest link, and how long it takes to find out who is gone. It begins
anew with each commit, and with each thing that befalls somebody or is over.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from swarmrt.ids import PeerId, peer_of
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.trainer.closing import worth
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.sim.swarm.world import World

FOUND_OUT_S = 15.0  # who is gone, whoever it is: by silence, by late rounds, by late answers
UNLEARNED_S = 90.0  # the same, by a trainer that has seen fewer rounds: two that are late
LEARNED = 3  # versions
TRIES = 3  # of a step: as it is disturbed, its recovery, and one more after a void round
DIRECTORY_S = 20.0  # to be seen there, hailed and admitted; a record that is out of date has to go


class Liveness:
    """A watch over the commits of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._commits = len(world.disk.committed_at)
        self._trainer = world.trainer
        self._learned = LEARNED  # versions that the trainer has committed
        self._since = world.clock.now
        self._due = math.inf
        self.closest = 0.0  # share of the bound that the slowest commit needed
        world.at_change, world.at_event = self.begin_anew, self.check
        self.begin_anew()

    def begin_anew(self) -> None:
        """Begin anew: something has befallen somebody, or is over."""
        if self._trainer is not self._world.trainer:
            self._trainer, self._learned = self._world.trainer, 0
        self._since = self._world.clock.now
        self._due = self._since + self.bound_s() if self.is_able() else math.inf

    def check(self) -> None:
        """Look at the time. Raises AssertionError when a version is overdue."""
        world = self._world
        commits = len(world.disk.committed_at)
        if commits > self._commits:
            self._learned += commits - self._commits
            self._commits = commits
            if math.isfinite(self._due):
                used = (world.clock.now - self._since) / (self._due - self._since)
                self.closest = max(self.closest, used)
            self.begin_anew()
        elif world.clock.now > self._due and not self._is_over():
            raise AssertionError(
                f"no commit for {world.clock.now - self._since:.1f} s at {world.clock.now:.1f} s, "
                f"though every stage works: {world.state()}"
            )

    def _is_over(self) -> bool:
        """Return whether the last version is committed; what is left is to save it."""
        return self._world.disk.steps[-1].version == self._world.steps

    # ------------------------------------------------------------------ who can go on

    def is_able(self) -> bool:
        """Return whether every stage has somebody who works, and whom nothing keeps from the
        others."""
        world = self._world
        trainer = world.trainer.process
        weather = world.network.weather
        if weather.lost or weather.late or not trainer.alive or trainer.paused:
            return False
        if world.network.is_stalled(trainer.me) or not self._has_all(self._works):
            return False
        if self._serves():
            return True
        is_lost = all(self._works(peer) or not self._is_serving(peer) for peer in self._live())
        return is_lost and not (world.is_directory_away or world.trainer.is_disk_hung)

    def _serves(self) -> bool:
        """Return whether, of each stage, somebody who works has the state: nobody has to come."""
        return self._has_all(lambda peer: self._works(peer) and self._is_serving(peer))

    def _has_all(self, is_one: Callable[[PeerId], bool]) -> bool:
        world = self._world
        return all(any(map(is_one, world.live(stage))) for stage in range(world.num_stages))

    def _live(self) -> list[PeerId]:
        world = self._world
        return [peer for stage in range(world.num_stages) for peer in world.live(stage)]

    def _is_serving(self, peer_id: PeerId) -> bool:
        """Return whether it has the state, and takes part or has done nothing for which it is
        kept out. Who rounds otherwise may hold other weights of the version."""
        core = self._world.peers[peer_id].process.core
        trainer = self._world.trainer.process.core
        assert isinstance(core, PeerCore) and isinstance(trainer, TrainerCore)
        if not core.seat.is_serving or core.seat.epoch != trainer.run.epoch:
            return False
        run, member = trainer.run, trainer.run.members.get(peer_id)
        if member is not None and member.state is not Membership.SEEN:
            return True
        known = run.digests[core.seat.settings.stage]
        has_state = core.seat.version == run.version and known in ("", core.seat.digest)
        return has_state and not run.conduct.faults(peer_id)

    def _works(self, peer_id: PeerId) -> bool:
        network, peer = self._world.network, self._world.peers[peer_id]
        core = peer.process.core
        assert isinstance(core, PeerCore)
        is_well = not (peer.process.paused or peer.jobs.is_hung or peer.drained)
        is_lent = peer.has_device and not core.seat.is_paused
        is_reached = not network.is_stalled(peer_id) and not network.is_cut_off(peer_id)
        return is_well and is_lent and is_reached

    # ------------------------------------------------------------------ how long it may take

    def bound_s(self) -> float:
        """Return how long the next commit may take, as things are now."""
        world = self._world
        steps = (1 + world.config.overlap) * TRIES
        found_s = 0.0 if self._serves() else self._lost_s() + self._load_s() + DIRECTORY_S
        found_out_s = self._round_s() if self._learned >= LEARNED else UNLEARNED_S
        return steps * self._step_s() + found_s + found_out_s + self._flights_s()

    def _flights_s(self) -> float:
        """Return for how long the trainer may go on waiting for what it has sent, of which some may
        be lost: after a long hang about as long again, as its patience doubles."""
        trainer = self._world.trainer.process
        assert isinstance(trainer.core, TrainerCore)
        return max(0.0, trainer.core.run.dispatch.last_due_at() - trainer.now)

    def _lost_s(self) -> float:
        """Return the time of the steps that going back loses: somebody who could go on may be
        waited for so long, and hang."""
        core = self._world.trainer.process.core
        assert isinstance(core, TrainerCore)
        return (core.run.version - core.run.saving.version) * core.run.pace.step_time.mean_s

    def _round_s(self) -> float:
        """Return the time in which a round of which something is lost is found late twice, by what
        the trainer has learned of rounds and links, and anybody else who is gone meanwhile. The
        second one is waited for twice as long."""
        core = self._world.trainer.process.core
        assert isinstance(core, TrainerCore)
        run = core.run
        ways = worth.WAYS + 1 + (run.settings.state_gradients if self._world.is_unlike else 0.0)
        link_s = ways * max((member.gradient_s for member in run.members), default=0.0)
        learned_s = (1 + 2) * (run.pace.round_time.patience_s(UNLEARNED_S / 3) + link_s)
        return min(max(FOUND_OUT_S, learned_s), UNLEARNED_S)

    def _step_s(self) -> float:
        """Return the time of a step that the slowest replica of each stage did, one stage after
        the other."""
        world = self._world
        computed_s = 0.0
        for stage in range(world.num_stages):
            slowest_s = max(world.peers[peer].jobs.service_s for peer in world.live(stage))
            computed_s += slowest_s * (3 * world.microbatches + world.eval_microbatches + 1)
        return computed_s + self._carried_s()

    def _carried_s(self) -> float:
        """Return the time of a step's bytes on the slowest link of a seat."""
        world = self._world
        if world.sizes is None:
            return 0.0
        members = max(len(world.live(stage)) for stage in range(world.num_stages))
        frames = 2 * world.num_stages * world.microbatches * world.sizes.activation_bytes
        reduced = 2 * members * world.sizes.gradient_bytes
        if world.is_unlike:
            reduced += 2 * members * world.sizes.state_bytes
        return (reduced + frames) / self._slowest_link()

    def _load_s(self) -> float:
        """Return the time that a state takes to load."""
        sizes = self._world.sizes
        return 2.0 if sizes is None else 2.0 + sizes.state_bytes / self._slowest_link()

    def _slowest_link(self) -> float:
        world = self._world
        assert world.network.wires is not None
        seats = Counter(map(peer_of, self._live()))  # that share their process's link
        links = [(world.network.wires.link(host), number) for host, number in seats.items()]
        return min(min(link.up_bytes_per_s, link.down_bytes_per_s) / n for link, n in links)
