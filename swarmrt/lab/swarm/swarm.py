"""A whole swarm of real processes on this machine, to be disturbed on purpose."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from swarmrt.config import load_config
from swarmrt.data import open_data
from swarmrt.errors import RunError, UsageError
from swarmrt.ids import PeerId
from swarmrt.lab.bench.emulation import Speed
from swarmrt.lab.swarm.commits import Commits
from swarmrt.lab.swarm.papers import LocalPapers
from swarmrt.lab.swarm.parts import Bootstrap, Part, Peer, Trainer
from swarmrt.model.builders import look_here
from swarmrt.model.partition import check_stages
from swarmrt.observe.audit import Audit, audit
from swarmrt.runtime.launching.launching import Launcher, consent
from swarmrt.runtime.trainer.folders import new_run_dir, write_config
from swarmrt.trust.joining_line import JoinLine

POLL_S = 0.05
START_S = 120.0  # for the directory node to come up, even on a loaded machine
LEAVE_S = 10.0  # for processes to leave by themselves, and after each SIGTERM
WAIT_S = 300.0
FINISH_S = 3600.0


class LocalSwarm:
    """A directory node, peers and a trainer. As a context manager it starts and ends them.

    However the block ends, no process is left.
    """

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
        forks: bool = True,
        variables: Mapping[tuple[int, int], Mapping[str, str]] | None = None,
    ) -> None:
        """Check everything, start nothing. Raises UsageError.

        `replicas` are the peers to begin with, one a stage by default; `overrides` are settings,
        like {"run.steps": 40}; `threads` are torch's in each peer, which computes on `device`. For
        experiments: `speeds` are emulated, by stage, one replica after the other; `link_delay_s`
        is how much longer every message between two processes takes; without `forks` each process
        loads its libraries by itself, as on a machine of its own; `variables` are added to the
        environment of a stage's replica of that number, which is not forked then.
        """
        settings = [f"{key}={_toml(value)}" for key, value in (overrides or {}).items()]
        self.config = load_config(Path(config), settings)
        look_here(self.config)
        check_stages(self.config)
        open_data(self.config)
        self.replicas = _checked(replicas, self.config.num_stages)
        self.run_dir = Path(run_dir) if run_dir is not None else new_run_dir(self.config)
        if (self.run_dir / "metrics.jsonl").exists():
            raise UsageError(f"{self.run_dir}: holds a run already; choose another folder")
        self._threads = threads or max(1, (os.cpu_count() or 1) // sum(self.replicas))
        self._device = device
        self._speeds, self._link_delay_s = speeds, link_delay_s
        self._forks, self._variables = forks, variables or {}
        self._launcher: Launcher | None = None
        self._is_in_a_fault = False
        self._commits = Commits(self.run_dir / "metrics.jsonl")
        self.papers = LocalPapers(self.config.run.name)
        self._peers: list[Peer] = []
        self._parts: list[Part] = []
        self.bootstrap: Bootstrap
        self.trainer: Trainer

    def __enter__(self) -> LocalSwarm:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ looking

    @property
    def version(self) -> int:
        """The steps committed; less again when a resumed trainer has gone back."""
        self._commits.read()
        return self._commits.version

    @property
    def commits(self) -> Commits:
        """Return all that the metrics say, up to now."""
        self._commits.read()
        return self._commits

    def members(self, stage: int) -> tuple[PeerId, ...]:
        """The peers that took part in the newest commit."""
        return self.commits.members(stage)

    def peers(self, stage: int | None = None) -> list[Peer]:
        """Live ones, oldest first; paused and draining ones too."""
        return [p for p in self._peers if p.is_alive and stage in (None, p.stage)]

    def ended_peers(self) -> list[Peer]:
        return [peer for peer in self._peers if not peer.is_alive]

    def wait(self, step: int, timeout_s: float = WAIT_S) -> None:
        """Wait until this step is committed. Raises RunError."""
        self.wait_until(lambda: self.version >= step, f"step {step}", timeout_s)

    def wait_for_member(self, peer: Peer, timeout_s: float = WAIT_S) -> None:
        """Wait until the peer has taken part in a commit. Raises RunError."""
        self.wait_until(
            lambda: peer.peer_id in self.members(peer.stage),
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

    # ------------------------------------------------------------------ doing

    @property
    def join_line(self) -> JoinLine:
        """Return the line with which another process joins, at all processes that are up."""
        return self.papers.line(self._addresses())

    def spawn(
        self,
        stage: int,
        failpoints: str = "",
        device: str | None = None,
        max_mbps: float | None = None,
    ) -> Peer:
        """Start one more peer, which joins at all processes that are up. Does not wait for it.

        `failpoints` like "peer.accumulate.before_receipt=kill@3" are on in it; it computes on
        `device`, by default on that of the swarm; its links send `max_mbps` megabits a second.
        """
        if not 0 <= stage < self.config.num_stages:
            raise UsageError(f"there is no stage {stage}: stages are 0 to {len(self.replicas) - 1}")
        more = [] if max_mbps is None else ["--max-mbps", str(max_mbps)]
        return self._start_peer(stage, self._addresses(), failpoints, device, more)

    def cut(self, a: Peer | Trainer, b: Peer | Trainer, seconds: float) -> None:
        """Break the links between two processes, and refuse new ones until then."""
        a.tell({"cut": b.peer_id, "seconds": seconds})
        b.tell({"cut": a.peer_id, "seconds": seconds})
        self.note_fault("cut")

    def slow(self, a: Peer | Trainer, b: Peer | Trainer, delay_s: float, seconds: float) -> None:
        """Have messages between the two take this much longer, each way, until then."""
        a.tell({"slow": b.peer_id, "delay_s": delay_s, "seconds": seconds})
        b.tell({"slow": a.peer_id, "delay_s": delay_s, "seconds": seconds})
        self.note_fault("slow")

    def still(self, peer: Peer, seconds: float) -> None:
        """Let all links of a peer stand still until then, both ways, as a radio does."""
        others = [end for end in (*self._peers, self.trainer) if end != peer and end.is_alive]
        peer.tell({"still": None, "seconds": seconds})
        for other in others:
            other.tell({"still": peer.peer_id, "seconds": seconds})
        self.note_fault("radio")

    def hang(self, peer: Peer, thread: str, seconds: float) -> None:
        """Let a thread of a peer, "compute" or "reduce", do nothing until then."""
        peer.tell({"hang": thread, "seconds": seconds})
        self.note_fault("hang")

    def stop_directory(self, seconds: float) -> None:
        """Let all libp2p daemons stand still until then: whoever asks the directory is not
        answered. Direct links and beacons go on."""
        for part in self._parts:
            if part.is_alive:
                part.tell({"daemon": "still", "seconds": seconds})
        self.note_fault("directory")

    def fill_disk(self, part: Part, seconds: float) -> None:
        """Let files of a process take no more until then."""
        part.tell({"disk": "full", "seconds": seconds})
        self.note_fault("disk")

    def start_bootstrap(self) -> None:
        """Start the directory node, the first time and after it was killed. It joins whoever is
        there."""
        papers = self.papers.of_guest(self._addresses())
        self.bootstrap.start(["bootstrap", "--json"], papers)

    def finish(self, timeout_s: float = FINISH_S) -> None:
        """Wait for the run's own end. Raises RunError when it fails, or time runs out."""
        if not self.trainer.wait(timeout_s):
            raise self._error(f"waited {timeout_s:.0f} s in vain for the end of the run")
        if self.trainer.exit_code != 0:
            raise self._error(f"the trainer ended with exit code {self.trainer.exit_code}")
        for peer in self.peers():
            peer.resume()
        _wait_for(self._peers, LEAVE_S)

    def note_fault(self, kind: str) -> None:
        """Write down what was done to the run, for the audit to count.

        What is done by way of this swarm and its parts is written down by itself.
        """
        if self._is_in_a_fault:
            return
        line = json.dumps({"time": time.time(), "kind": kind})
        with (self.run_dir / "faults.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextmanager
    def one_fault(self, kind: str) -> Iterator[None]:
        """Write down what is done inside as one fault of this kind, if it succeeds."""
        self._is_in_a_fault = True
        try:
            yield
        finally:
            self._is_in_a_fault = False
        self.note_fault(kind)

    def audit(self) -> Audit:
        """Audit whether the run kept its promises, by the logs in its folder."""
        return audit(self.run_dir)

    def close(self) -> None:
        """End all processes: SIGTERM first, SIGKILL after a while. The directory comes last."""
        directory = [part for part in self._parts if isinstance(part, Bootstrap)]
        try:
            _ask_to_leave([part for part in self._parts if part not in directory])
            _ask_to_leave(directory)
        finally:  # also when a second Ctrl-C interrupts the waiting
            for part in self._parts:
                part.close()
            if self._launcher is not None:
                self._launcher.close()
            for part in self._parts:
                for text in part.never_fired():
                    print(f"swarmrt: {part.name}: {text}", file=sys.stderr)
            self._wait_for_daemons()

    # ------------------------------------------------------------------ starting

    def _start(self) -> None:
        write_config(self.run_dir, self.config)
        self._launcher = launcher = Launcher(str(self.run_dir), self._forks)
        folder = self.run_dir / "bootstrap"
        self.bootstrap = Bootstrap(
            "bootstrap", folder, folder / "identity", launcher, self.note_fault
        )
        self._parts.append(self.bootstrap)
        self.start_bootstrap()
        self._wait_for_bootstrap()
        for stage, number in enumerate(self.replicas):
            for _ in range(number):
                self._start_peer(stage, [self.bootstrap.address])
        self.trainer = Trainer(
            "trainer",
            self.run_dir / "trainer",
            self.run_dir / "identity",
            launcher,
            self.note_fault,
            self._resume,
        )
        self._parts.append(self.trainer)
        replicas = ",".join(map(str, self.replicas))
        self._start_trainer([self.bootstrap.address], "--replicas", replicas)

    def _wait_for_bootstrap(self) -> None:
        deadline = time.monotonic() + START_S
        while '"join"' not in self.bootstrap.output():
            if not self.bootstrap.is_alive or time.monotonic() > deadline:
                raise RunError(
                    f"the directory node did not start in {START_S:.0f} s: "
                    f"{self.bootstrap.last_lines()}"
                )
            time.sleep(POLL_S)

    def _start_peer(
        self,
        stage: int,
        join: Sequence[str],
        failpoints: str = "",
        device: str | None = None,
        more: Sequence[str] = (),
    ) -> Peer:
        assert self._launcher is not None, "the swarm has not been started"
        number = sum(peer.stage == stage for peer in self._peers)
        device = device or self._device
        name = f"stage-{stage}-{number}"
        peer = Peer(name, self.run_dir / "peers" / name, stage, self._launcher, self.note_fault)
        self._peers.append(peer)
        self._parts.append(peer)
        arguments = ["serve", "--stage", str(stage), "--wait"]
        arguments += ["--threads", str(self._threads), "--log-dir", str(peer.folder)]
        arguments += ["--device", device, *consent(self.config)]
        if self._speeds is not None:
            speeds = self._speeds[stage]
            arguments += ["--emulate", str(speeds[number % len(speeds)])]
        papers = self.papers.of_guest(join)
        variables = self._variables.get((stage, number), {})
        alone = device != "cpu" or bool(variables)
        peer.start([*arguments, *self._far(), *more], papers, failpoints, alone, variables)
        return peer

    def _start_trainer(self, join: Sequence[str], *more: str, failpoints: str = "") -> None:
        arguments = ["train", str(self.run_dir / "config.toml"), "--run-dir", str(self.run_dir)]
        arguments += [*self._far(), *_joins(join), *more]
        self.trainer.start(arguments, self.papers.of_owner(), failpoints)

    def _far(self) -> list[str]:
        return ["--link-delay", str(self._link_delay_s)] if self._link_delay_s else []

    def _resume(self, failpoints: str) -> None:
        resume = ("--resume", str(self.run_dir), "--replicas", "1", "--wait")
        self._start_trainer(self._addresses(), *resume, failpoints=failpoints)

    def _addresses(self) -> list[str]:
        """Return the addresses of all processes that would answer a newcomer now."""
        return [
            part.address
            for part in self._parts
            if part.is_alive and part.listens and not (isinstance(part, Peer) and part.is_paused)
        ]

    # ------------------------------------------------------------------ ending

    def _wait_for_daemons(self) -> None:
        """The daemon of a killed process goes by itself, an instant later."""
        deadline = time.monotonic() + LEAVE_S
        while left := [part.name for part in self._parts if part.listens]:
            if time.monotonic() > deadline:
                print(f"swarmrt: still listening: {', '.join(left)}", file=sys.stderr)
                return
            time.sleep(POLL_S)

    def _error(self, what: str) -> RunError:
        return RunError(
            f"{what}, at step {self.version}; the trainer's last lines:\n"
            f"{self.trainer.last_lines()}"
        )


def _ask_to_leave(parts: Sequence[Part]) -> None:
    """SIGTERM, which asks to drain, and after a while once more, which asks to leave at once."""
    for _ in range(2):
        for part in parts:
            if isinstance(part, Peer):
                part.resume()  # a paused one cannot leave
            part.ask_to_leave()
        _wait_for(parts, LEAVE_S)
    for part in parts:
        if part.is_alive:
            print(f"swarmrt: {part.name} did not leave; killing it", file=sys.stderr)


def _wait_for(parts: Sequence[Part], seconds: float) -> None:
    """Wait for all of them to end, but not longer than this."""
    deadline = time.monotonic() + seconds
    for part in parts:
        part.wait(deadline - time.monotonic())


def _joins(addresses: Sequence[str]) -> list[str]:
    return [word for address in addresses for word in ("--join", address)]


def _checked(replicas: Sequence[int] | None, num_stages: int) -> tuple[int, ...]:
    numbers = tuple(replicas) if replicas is not None else (1,) * num_stages
    if len(numbers) != num_stages or min(numbers) < 1:
        raise UsageError(
            f"replicas {list(numbers)}: the run has {num_stages} stages, each needs at least one"
        )
    return numbers


def _toml(value: object) -> str:
    """Return a value as `--set` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
