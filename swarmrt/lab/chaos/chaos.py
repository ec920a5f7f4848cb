"""Carrying out a schedule of faults on a swarm, so that the run can still come to its end.

The rule: a stage always keeps a replica that runs and has its current weights. A fault that
would break it is skipped, and counted as skipped. One that cannot be seen by itself is looked for
when it is over: what left no trace was made in vain.
"""

from __future__ import annotations

import heapq
import itertools
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from swarmrt.errors import RunError
from swarmrt.ids import seat_of
from swarmrt.lab.chaos.schedule import Fault
from swarmrt.lab.chaos.traces import (
    ROOM_AGAIN,
    Trace,
    gave_device_back,
    said_again,
    was_asked_to_move,
    was_in,
)
from swarmrt.lab.swarm.part import POLL_S, Part
from swarmrt.lab.swarm.parts import Peer, Trainer
from swarmrt.lab.swarm.swarm import LocalSwarm
from swarmrt.runtime.daemon.restarting import UP_AGAIN

PROGRESS_S = 300.0  # without a commit, the run has failed
THREADS = ("compute", "reduce")
MORE_REPLICAS = 2  # than in the beginning, by joins
PROOF_S = 5.0  # after a fault: by then it has left its trace
DIRECTORY_PROOF_S = 0.5  # between two looks whether a directory that was stopped answers
COMING_S = 60.0  # for a directory node to come back
DAEMON_S = 20.0  # for a daemon that was killed to be up again
MOVE_S = 10.0  # within which a move comes to its failpoint
BACK_S = 1.0  # after which somebody comes for whoever has
JOINING_S = 60.0  # for a slow newcomer to come in, or to be told why not


class Skipped(Exception):
    """A fault that is not possible now."""


class Chaos:
    """A pass over a schedule. `done` and `skipped` count faults by kind; those `in_vain` have left
    no trace."""

    def __init__(
        self, swarm: LocalSwarm, schedule: Sequence[Fault], say: Callable[[str], None]
    ) -> None:
        self.done: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.in_vain: list[str] = []
        self._swarm, self._say = swarm, say
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._disturbed_until: dict[str, float] = {}  # wall-clock time, by the peer's name
        self._sent_away: set[str] = set()  # names of peers that were killed or told to leave
        self._schedule = schedule
        self._began = self._ended_at = math.nan
        self._trainer_will_return = False
        self._commits_before_return = 0
        self._died: set[str] = set()
        self._directory_until = 0.0  # by `_now_s`
        self._trainer_spared_until = 0.0
        self._traces: list[Trace] = []
        self._movers = swarm.num_movers
        self._armed: set[str] = set()  # names of processes in which a failpoint is on
        self._trainer_died_at: list[float] = []  # by `_now_s`

    def run(self) -> None:
        """Make the faults, from the first commit to the end of the run. Raises RunError when it
        fails."""
        self._swarm.wait(step=1)
        self._began = time.monotonic()
        for fault in self._schedule:
            self._plan(fault.at_s, partial(self._carry_out, fault))
        commits, since = 0, self._began
        while self._goes_on():
            self._act_on_time()
            self._note_deaths()
            if self._swarm.commits.number > commits:
                commits, since = self._swarm.commits.number, time.monotonic()
            if time.monotonic() - since > PROGRESS_S:
                raise RunError(f"no step was committed for {PROGRESS_S:.0f} s")
            time.sleep(POLL_S)
        self._ended_at = self._now_s
        self._swarm.finish()
        found = [trace for trace in self._traces if trace.counts() and not trace.is_there()]
        self.in_vain += [trace.what for trace in found]

    def died(self) -> list[str]:
        """Peers that ended with an error though nobody had sent them away."""
        return sorted(self._died)

    def _goes_on(self) -> bool:
        """Return whether the trainer runs, or will: a failpoint has ended it, say."""
        trainer = self._swarm.trainer
        if trainer.is_alive or self._trainer_will_return:
            return True
        if "trainer" not in self._armed or trainer.exit_code != -signal.SIGKILL:
            return False
        self._say(f"{self._now_s:8.2f} s  the trainer has come to its failpoint")
        self._trainer_died(BACK_S)
        return True

    def _note_deaths(self) -> None:
        """Note who has died before the run is over: then everyone leaves, and a newcomer may find
        nobody. Who has come to a failpoint is replaced."""
        if self._swarm.version >= self._swarm.config.run.steps:
            return
        ended = [peer for peer in self._swarm.ended_peers() if peer.exit_code]
        for peer in ended:
            if peer.name in self._armed and peer.exit_code == -signal.SIGKILL:
                self._armed.discard(peer.name)
                if peer.name not in self._sent_away:
                    self._say(f"{self._now_s:8.2f} s  {peer.name} has come to its failpoint")
                    self._sent_away.add(peer.name)
                    self._plan(self._now_s + BACK_S, partial(self._replace, peer))
        self._died |= {peer.name for peer in ended} - self._sent_away

    # ------------------------------------------------------------------ time

    def _plan(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (at_s, next(self._order), act))

    def _act_on_time(self) -> None:
        if self._swarm.version >= self._swarm.config.run.steps and not self._trainer_will_return:
            self._agenda.clear()  # the run is over
        while self._agenda and self._agenda[0][0] <= self._now_s:
            heapq.heappop(self._agenda)[2]()

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._began

    # ------------------------------------------------------------------ faults

    def _carry_out(self, fault: Fault) -> None:
        acts = {
            "kill": self._kill,
            "term": self._kill,
            "stop": self._stop,
            "cut": self._cut,
            "slow": self._slow,
            "radio": self._still,
            "hang": self._hang,
            "pause-owner": self._take_device,
            "move": self._move,
            "join": self._join,
            "slow-newcomer": self._join_slowly,
            "directory": self._stop_directory,
            "daemon": self._kill_daemon,
            "disk": self._fill_disk,
            "trainer": self._kill_trainer,
            "bootstrap": self._kill_bootstrap,
        }
        try:
            with self._swarm.faults.one(fault.kind):
                what = acts[fault.kind](fault)
        except (Skipped, RunError) as reason:  # RunError: it has just ended by itself
            self.skipped[fault.kind] += 1
            what = f"skipped: {reason}"
        else:
            self.done[fault.kind] += 1
        step = self._swarm.version
        self._say(f"{self._now_s:8.2f} s  step {step:>4}  {fault.kind:<13} {what}")

    def _kill(self, fault: Fault) -> str:
        peer = self._with_company(fault)
        self._sent_away.add(peer.name)
        if fault.kind == "kill":
            peer.kill()
        else:
            peer.terminate()
        self._plan(self._now_s + fault.seconds, partial(self._replace, peer))
        return peer.name

    def _replace(self, peer: Peer) -> None:
        """Start another one in its place, if there are fewer than in the beginning."""
        if peer.is_mover:
            staying = [mover for mover in self._swarm.movers() if not mover.is_draining]
            if len(staying) < self._movers:
                self._say(f"{self._now_s:8.2f} s  {self._swarm.spawn(()).name} comes, and moves")
            return
        stage = peer.stage
        staying = [peer for peer in self._swarm.peers(stage) if not peer.is_draining]
        if len(staying) < self._swarm.replicas[stage]:
            other = self._swarm.spawn(stage)
            self._say(f"{self._now_s:8.2f} s  {other.name} comes as a replacement")

    def _stop(self, fault: Fault) -> str:
        peer = self._with_company(fault)
        self._disturb(peer, fault.seconds)
        peer.pause(fault.seconds)
        return f"{peer.name} for {fault.seconds:.2f} s"

    def _cut(self, fault: Fault) -> str:
        peer = self._with_company(fault)
        other = self._other_end(fault, peer)
        self._swarm.cut(peer, other, fault.seconds)
        for end in (peer, other):
            self._disturb(end, fault.seconds)
        return f"{peer.name} from {other.name} for {fault.seconds:.2f} s"

    def _slow(self, fault: Fault) -> str:
        assert fault.stage is not None
        running = [peer for peer in self._serving(fault.stage) if peer.is_running]
        peer = _one_of(running, fault.which, f"stage {fault.stage} has nobody running")
        other = self._other_end(fault, peer)
        self._swarm.slow(peer, other, fault.delay_s, fault.seconds)
        for end in (peer, other):
            self._disturb(end, fault.seconds + fault.delay_s)
        return f"{peer.name} from {other.name} by {fault.delay_s:.2f} s for {fault.seconds:.2f} s"

    def _still(self, fault: Fault) -> str:
        peer = self._with_company(fault)
        self._swarm.still(peer, fault.seconds)
        self._disturb(peer, fault.seconds)
        return f"all links of {peer.name} stand still for {fault.seconds:.2f} s"

    def _hang(self, fault: Fault) -> str:
        peer = self._with_company(fault)
        thread = THREADS[fault.other % len(THREADS)]
        self._swarm.hang(peer, thread, fault.seconds)
        self._disturb(peer, fault.seconds)
        return f"the {thread} thread of {peer.name} for {fault.seconds:.2f} s"

    def _take_device(self, fault: Fault) -> str:
        peer = self._with_company(fault)
        self._disturb(peer, fault.seconds)
        until = self._now_s + fault.seconds

        def had_time() -> bool:
            stayed = peer.name not in self._sent_away | self._died
            return stayed and self._ended_at > until

        what = f"{peer.name} for {fault.seconds:.2f} s"
        trace = f"the owner of {what}: its device was never free"
        self._traces.append(Trace(trace, partial(gave_device_back, peer), had_time))
        self._aside(partial(peer.ask_as_owner, "pause"))
        self._plan(until, partial(self._aside, partial(peer.ask_as_owner, "resume")))
        return what

    def _move(self, fault: Fault) -> str:
        assert fault.other_stage is not None
        mover = self._with_company(fault, only_movers=True)
        self._check_trainer_is_well()
        role, rule = fault.failpoint.partition(".")[0], fault.failpoint
        if role == "trainer" and self._now_s < self._trainer_spared_until:
            rule = ""  # its log is to tell of its disk, or its daemon
        if rule:
            (self._swarm.trainer if role == "trainer" else mover).tell({"failpoint": rule})
            self._armed.add("trainer" if role == "trainer" else mover.name)
            self._disturb(mover, MOVE_S)
        self._swarm.move(mover, fault.other_stage, fault.seconds)
        asked_at = self._now_s

        def had_time() -> bool:
            spared = all(not 0 <= at - asked_at < PROOF_S for at in self._trainer_died_at)
            return spared and self._ended_at - asked_at > PROOF_S

        what = f"{mover.name} to stage {fault.other_stage}, for {fault.seconds:.2f} s"
        was_told = partial(was_asked_to_move, self._swarm.trainer, mover)
        self._traces.append(Trace(f"{what}: the trainer never heard of it", was_told, had_time))
        return f"{what}{f'; {rule}' if rule else ''}"

    def _aside(self, act: Callable[[], None]) -> None:
        """Do what may take long, as it waits for a process."""

        def done() -> None:
            try:
                act()
            except RunError as error:  # it has ended, or hangs, by another fault
                self._say(f"{self._now_s:8.2f} s  {error}")

        threading.Thread(target=done, daemon=True).start()

    def _join(self, fault: Fault) -> str:
        return self._swarm.spawn(self._with_room(fault)).name

    def _join_slowly(self, fault: Fault) -> str:
        peer = self._swarm.spawn(self._with_room(fault), link_rate=f"{fault.mbps}mbit")
        came_at = self._now_s

        def had_time() -> bool:
            stayed = peer.name not in self._sent_away | self._died
            return stayed and self._ended_at - came_at > JOINING_S

        what = f"{peer.name}, which sends {fault.mbps:.2f} Mb/s"
        trace = f"{what}, gave no part of a gradient and was not left out"
        self._traces.append(Trace(trace, partial(was_in, peer), had_time))
        return what

    def _stop_directory(self, fault: Fault) -> str:
        if self._now_s < self._directory_until:
            raise Skipped("the directory is still down, or coming up")
        node = self._swarm.bootstrap
        if fault.other == 0 or not node.is_alive:
            running = [peer for peer in self._swarm.peers() if peer.is_running and peer.answers()]
            asked = _one_of(running, fault.which, "no node answers")
            self._swarm.stop_directory(fault.seconds)
            self._directory_until = self._now_s + fault.seconds
            self._plan(self._now_s + DIRECTORY_PROOF_S, partial(self._check_directory, asked))
            return f"all nodes stand still for {fault.seconds:.2f} s"
        node.kill()
        back_s = self._now_s + fault.seconds
        self._directory_until = back_s + COMING_S
        self._plan(back_s, self._swarm.start_bootstrap)
        self._plan(back_s, partial(self._check_back, node))
        return f"its first node is killed, and is back {fault.seconds:.2f} s later"

    def _check_directory(self, node: Peer) -> None:
        if not (node.is_running and node.answers(DIRECTORY_PROOF_S)):
            return
        if self._now_s < self._directory_until:
            self._plan(self._now_s + DIRECTORY_PROOF_S, partial(self._check_directory, node))
        else:
            self.in_vain.append(f"the directory answered at {node.name} while it stood still")

    def _check_back(self, node: Part) -> None:
        if node.answers():
            self._directory_until = self._now_s
        elif self._now_s < self._directory_until and node.is_alive:
            self._plan(self._now_s + 1.0, partial(self._check_back, node))
        else:
            self.in_vain.append("the first node of the directory has not come back")

    def _kill_daemon(self, fault: Fault) -> str:
        if self._now_s < self._directory_until:
            raise Skipped("the directory is still down, or coming up")
        part = self._part_for(fault, DAEMON_S)
        trace = f"the daemon of {part.name} was killed, and it has not said that it is up again"
        self._expect(trace, said_again(part, UP_AGAIN), DAEMON_S)
        self._directory_until = self._now_s + PROOF_S  # so that none that stands still comes back
        self._swarm.kill_daemon(part)
        return f"that of {part.name} is killed"

    def _fill_disk(self, fault: Fault) -> str:
        lasts_s = fault.seconds + PROOF_S
        part = self._part_for(fault, lasts_s)
        what = f"that of {part.name} is full for {fault.seconds:.2f} s"
        trace = f"the disk: {what}, and its log was not held up"
        self._expect(trace, said_again(part, ROOM_AGAIN), lasts_s)
        self._swarm.fill_disk(part, fault.seconds)
        return what

    def _part_for(self, fault: Fault, lasts_s: float) -> Part:
        """Return the trainer or the peer that a fault is of, which is spared others meanwhile.
        Raises Skipped."""
        if fault.stage is None:
            self._check_trainer_is_well()
            if "trainer" in self._armed:
                raise Skipped("the trainer is about to fail, and its log is to tell of this")
            self._trainer_spared_until = max(self._trainer_spared_until, self._now_s + lasts_s)
            return self._swarm.trainer
        peer = _one_of(
            self._settled(fault.stage), fault.which, f"nobody of stage {fault.stage} is well"
        )
        self._disturb(peer, lasts_s)
        return peer

    def _expect(self, missing: str, is_there: Callable[[], bool], within_s: float) -> None:
        """Look for a trace when the run is over, if it goes on for so long."""
        due_at = self._now_s + within_s
        self._traces.append(Trace(missing, is_there, lambda: self._ended_at > due_at))

    def _kill_trainer(self, fault: Fault) -> str:
        swarm = self._swarm
        self._check_trainer_is_well()
        if swarm.version >= swarm.config.run.steps:
            raise Skipped("the run is over")
        if self._now_s < self._trainer_spared_until:
            raise Skipped("its disk or its daemon has just failed, and its log is to tell of that")
        swarm.trainer.kill()
        self._trainer_died(fault.seconds)
        return "killed"

    def _trainer_died(self, seconds: float) -> None:
        """Have it resumed so many seconds later."""
        self._armed.discard("trainer")
        self._trainer_died_at.append(self._now_s)
        self._trainer_will_return = True
        self._plan(self._now_s + seconds, self._resume_trainer)

    def _check_trainer_is_well(self) -> None:
        """Raise Skipped unless the trainer runs and has committed something."""
        if not self._swarm.trainer.is_alive:
            raise Skipped("the trainer is not running")
        if self._swarm.commits.number <= self._commits_before_return:
            raise Skipped("the trainer has committed nothing since it was resumed")

    def _resume_trainer(self) -> None:
        self._trainer_will_return = False
        self._commits_before_return = self._swarm.commits.number
        self._swarm.trainer.resume()
        self._say(f"{self._now_s:8.2f} s  the trainer is resumed")

    def _kill_bootstrap(self, fault: Fault) -> str:
        if not self._swarm.bootstrap.is_alive:
            raise Skipped("it is not running")
        if self._now_s < self._directory_until:
            raise Skipped("the directory is still down, or coming up")
        self._swarm.bootstrap.kill()
        return "killed"

    # ------------------------------------------------------------------ who can be chosen

    def _with_room(self, fault: Fault) -> int:
        """Return the fault's stage, which has room for a newcomer. Raises Skipped."""
        assert fault.stage is not None
        there = len(self._serving(fault.stage))
        if there >= self._swarm.replicas[fault.stage] + MORE_REPLICAS:
            raise Skipped(f"stage {fault.stage} has {there} replicas, which are enough")
        return fault.stage

    def _with_company(self, fault: Fault, *, only_movers: bool = False) -> Peer:
        """Return a settled peer that has company at each stage that it serves. Raises Skipped."""
        assert fault.stage is not None
        settled = self._settled(fault.stage)
        if len(settled) < 2:
            raise Skipped(f"stage {fault.stage} needs a second replica that is well")
        if only_movers:
            settled = [peer for peer in settled if peer.is_mover]
        peer = _one_of(settled, fault.which, f"nobody of stage {fault.stage} may move")
        alone = [stage for stage in self._stages_of(peer) if self._settled(stage) in ([], [peer])]
        if alone:
            raise Skipped(f"{peer.name} is all that stage {alone[0]} has")
        return peer

    def _serving(self, stage: int) -> list[Peer]:
        """Return the live peers of a stage, and those that serve it for now."""
        movers = [mover for mover in self._swarm.movers() if stage in self._stages_of(mover)]
        return [*self._swarm.peers(stage), *movers]

    def _stages_of(self, peer: Peer) -> tuple[int, ...]:
        return self._swarm.served_by(peer) if peer.is_mover else peer.stages

    def _settled(self, stage: int) -> list[Peer]:
        return [peer for peer in self._serving(stage) if self._is_settled(peer, stage)]

    def _other_end(self, fault: Fault, peer: Peer) -> Peer | Trainer:
        if fault.other_stage is None:
            if not self._swarm.trainer.is_alive:
                raise Skipped("the trainer is not running")
            return self._swarm.trainer
        others = [p for p in self._serving(fault.other_stage) if p.is_running and p != peer]
        nobody = f"stage {fault.other_stage} has nobody else running"
        return _one_of(others, fault.other, nobody)

    def _is_settled(self, peer: Peer, stage: int) -> bool:
        """Return whether a peer runs, and had part at a stage in the newest commit, which began
        after its last trouble."""
        commits = self._swarm.commits
        return (
            peer.is_running
            and seat_of(peer.peer_id, stage) in commits.members(stage)
            and commits.before_last_at > self._disturbed_until.get(peer.name, 0.0)
        )

    def _disturb(self, end: Peer | Trainer, seconds: float) -> None:
        until = time.time() + seconds
        self._disturbed_until[end.name] = max(until, self._disturbed_until.get(end.name, 0.0))


def _one_of(peers: Sequence[Peer], which: int, nobody: str) -> Peer:
    if not peers:
        raise Skipped(nobody)
    return peers[which % len(peers)]
