"""A whole swarm of real processes on this machine, to be disturbed on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from swarmrt.config_toml import load_config
from swarmrt.data import open_data
from swarmrt.errors import RunError, UsageError
from swarmrt.ids import PeerId, seat_of
from swarmrt.lab.bench.emulation import Speed
from swarmrt.lab.swarm.commits import Commits
from swarmrt.lab.swarm.launch import LaunchedSwarm
from swarmrt.lab.swarm.options import Options, replicas_of
from swarmrt.lab.swarm.part import POLL_S, Part
from swarmrt.lab.swarm.parts import Peer, Trainer
from swarmrt.model.builders import look_here
from swarmrt.model.partition import check_stages
from swarmrt.observe.audit import Audit, audit
from swarmrt.runtime.trainer.folders import new_run_dir
from swarmrt.scheduler.wiring.policy import policy_of
from swarmrt.trust.joining_line import JoinLine

WAIT_S = 300.0
FINISH_S = 3600.0


class LocalSwarm(LaunchedSwarm):
    """A swarm that is launched here, with what an experiment asks of it and does to it."""

    def __init__(
        self,
        config: str | Path,
        replicas: Sequence[int] | None = None,
        *,
        run_dir: str | Path | None = None,
        overrides: Mapping[str, object] | None = None,
        threads: int | None = None,
        device: str = "cpu",
        speeds: Sequence[Sequence[Speed]] | None = None,
        link_delay_s: float = 0.0,
        link_rate: str | None = None,
        forks: bool = True,
        variables: Mapping[tuple[int, int], Mapping[str, str]] | None = None,
        processes: Sequence[tuple[int, ...]] = (),
        spares: Sequence[int] = (),
        movers: int = 0,
    ) -> None:
        """Check everything, start nothing. Raises UsageError.

        `replicas` are one a stage by default, each in a process of its own; where `processes` are
        given, each has seats at those stages. `spares` are none by default. So many `movers` serve
        where they help most: then a stage may begin with no other replica. `overrides` are
        settings, like {"run.steps": 40}; the rest is in `Options`.
        """
        settings = [f"{key}={_toml(value)}" for key, value in (overrides or {}).items()]
        loaded = load_config(Path(config), settings)
        look_here(loaded)
        policy_of(loaded.wiring.policy)  # or it says now that there is none
        check_stages(loaded)
        open_data(loaded)
        if processes:
            replicas = replicas_of(processes, loaded.num_stages)
        numbers = _checked(replicas, loaded.num_stages, least=0 if movers else 1)
        if len(spares) not in (0, loaded.num_stages):
            raise UsageError(f"spares {list(spares)}: write one number for each stage")
        folder = Path(run_dir) if run_dir is not None else new_run_dir(loaded)
        if (folder / "metrics.jsonl").exists():
            raise UsageError(f"{folder}: holds a run already; choose another folder")
        options = Options(
            processes=processes,
            spares=spares,
            movers=movers,
            threads=threads,
            device=device,
            speeds=speeds,
            link_delay_s=link_delay_s,
            link_rate=link_rate,
            forks=forks,
            variables=variables or {},
        )
        super().__init__(loaded, numbers, folder, options)
        self._commits = Commits(folder / "metrics.jsonl")

    # ------------------------------------------------------------------ looking

    @property
    def version(self) -> int:
        """The steps committed; less again when a resumed trainer has gone back."""
        return self.commits.version

    @property
    def commits(self) -> Commits:
        """Return all that the metrics say, up to now."""
        self._commits.read()
        return self._commits

    def members(self, stage: int) -> tuple[PeerId, ...]:
        """The seats that took part in the newest commit."""
        return self.commits.members(stage)

    def wait(self, step: int, timeout_s: float = WAIT_S) -> None:
        """Wait until this step is committed. Raises RunError."""
        self.wait_until(lambda: self.version >= step, f"step {step}", timeout_s)

    def wait_for_member(self, peer: Peer, timeout_s: float = WAIT_S) -> None:
        """Wait until the peer has taken part in a commit. Raises RunError."""
        self.wait_until(
            lambda: peer.seat in self.members(peer.stage),
            f"{peer.name} to take part in a commit",
            timeout_s,
        )

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait until this holds. Raises RunError when the trainer ends before, or time runs out."""
        deadline = time.monotonic() + timeout_s
        while True:
            alive = self.trainer.is_alive  # asked first: what it did last counts
            if condition():
                return
            if not alive:
                raise self._error(f"the trainer ended before {what}")
            if time.monotonic() > deadline:
                raise self._error(f"waited {timeout_s:.0f} s in vain for {what}")
            time.sleep(POLL_S)

    def finish(self, timeout_s: float = FINISH_S) -> None:
        """Wait for the run's own end. Raises RunError when it fails, or time runs out."""
        if not self.trainer.wait(timeout_s):
            raise self._error(f"waited {timeout_s:.0f} s in vain for the end of the run")
        if self.trainer.exit_code != 0:
            raise self._error(f"the trainer ended with exit code {self.trainer.exit_code}")
        self.wait_for_peers()

    def audit(self) -> Audit:
        """Audit whether the run kept its promises, by the logs in its folder."""
        return audit(self.run_dir)

    def _error(self, what: str) -> RunError:
        return RunError(
            f"{what}, at step {self.version}; the trainer's last lines:\n"
            f"{self.trainer.last_lines()}"
        )

    # ------------------------------------------------------------------ doing

    @property
    def join_line(self) -> JoinLine:
        """Return the line with which another process joins, at all processes that are up."""
        return self.papers.line(self._addresses())

    def movers(self) -> list[Peer]:
        """Return the live ones of those that serve where they help most, oldest first."""
        return [peer for peer in self._peers if peer.is_alive and peer.is_mover]

    @property
    def num_movers(self) -> int:
        """Return how many processes that serve where they help most there are to begin with."""
        return self._options.movers

    def served_by(self, mover: Peer) -> tuple[int, ...]:
        """Return the stages at which a process took part in the newest commit."""
        stages = range(self.config.num_stages)
        return tuple(s for s in stages if seat_of(mover.peer_id, s) in self.members(s))

    def spawn(
        self,
        stage: int | tuple[int, ...],
        failpoints: str = "",
        device: str | None = None,
        link_rate: str | None = None,
        *,
        is_spare: bool = False,
        hours: str | None = None,
    ) -> Peer:
        """Start one more peer, with a seat at each of these stages, which joins at all processes
        that are up. Does not wait for it.

        `failpoints` like "peer.accumulate.before_receipt=kill@3" are on in it; it computes on
        `device`, by default on that of the swarm; its links send `link_rate`, like 1mbit. A
        spare takes work only in the place of a replica that is lost. With no stages it serves
        where it helps most. Outside of its `hours`, like 22-7, it is paused.
        """
        stages = stage if isinstance(stage, tuple) else (stage,)
        for one in stages:
            if not 0 <= one < self.config.num_stages:
                last = len(self.replicas) - 1
                raise UsageError(f"there is no stage {one}: stages are 0 to {last}")
        more = [] if link_rate is None else ["--up", link_rate]
        more += [] if hours is None else ["--hours", hours]
        peer = self._new_peer(stages, is_spare=is_spare)
        self._start_peer(peer, self._addresses(), failpoints, device, more)
        return peer

    def cut(self, a: Peer | Trainer, b: Peer | Trainer, seconds: float) -> None:
        """Break the links between two processes, and refuse new ones until then."""
        a.tell({"cut": b.peer_id, "seconds": seconds})
        b.tell({"cut": a.peer_id, "seconds": seconds})
        self.faults.note("cut")

    def slow(self, a: Peer | Trainer, b: Peer | Trainer, delay_s: float, seconds: float) -> None:
        """Have messages between the two take this much longer, each way, until then."""
        a.tell({"slow": b.peer_id, "delay_s": delay_s, "seconds": seconds})
        b.tell({"slow": a.peer_id, "delay_s": delay_s, "seconds": seconds})
        self.faults.note("slow")

    def still(self, peer: Peer, seconds: float) -> None:
        """Let all links of a peer stand still until then, both ways, as a radio does."""
        others = [end for end in (*self._peers, self.trainer) if end != peer and end.is_alive]
        peer.tell({"still": None, "seconds": seconds})
        for other in others:
            other.tell({"still": peer.peer_id, "seconds": seconds})
        self.faults.note("radio")

    def hang(self, peer: Peer, thread: str, seconds: float) -> None:
        """Let a thread of a peer, "compute" or "reduce", do nothing until then."""
        peer.tell({"hang": thread, "seconds": seconds})
        self.faults.note("hang")

    def stop_directory(self, seconds: float) -> None:
        """Let all libp2p daemons stand still until then: whoever asks the directory is not
        answered. Direct links and beacons go on."""
        for part in self.parts:
            if part.is_alive:
                part.tell({"daemon": "still", "seconds": seconds})
        self.faults.note("directory")

    def kill_daemon(self, part: Part) -> None:
        """Kill the libp2p daemon of a process, which has to start it again."""
        part.tell({"daemon": "dead"})
        self.faults.note("daemon")

    def move(self, mover: Peer, stage: int, seconds: float) -> None:
        """Have the trainer let a process that serves where it helps most serve this stage, and stay
        there for so long. It does so only if its owner, and its room, allow it."""
        self.trainer.tell({"move": mover.peer_id, "stage": stage, "seconds": seconds})
        self.faults.note("move")

    def fill_disk(self, part: Part, seconds: float) -> None:
        """Let files of a process take no more until then."""
        part.tell({"disk": "full", "seconds": seconds})
        self.faults.note("disk")


def _checked(replicas: Sequence[int] | None, num_stages: int, least: int) -> tuple[int, ...]:
    numbers = tuple(replicas) if replicas is not None else (1,) * num_stages
    if len(numbers) != num_stages or min(numbers) < least:
        raise UsageError(
            f"replicas {list(numbers)}: the run has {num_stages} stages, each needs at least one"
        )
    return numbers


def _toml(value: object) -> str:
    """Return a value as `--set` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
