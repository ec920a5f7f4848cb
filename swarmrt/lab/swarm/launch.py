"""A swarm of real processes on this machine, from its start to its end.

`swarmrt local` lets it come to its end by itself; experiments disturb it (`swarm.py`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from swarmrt.config import RunConfig
from swarmrt.errors import RunError
from swarmrt.lab.swarm.faults import FaultRecord
from swarmrt.lab.swarm.options import Options, consent
from swarmrt.lab.swarm.papers import LocalPapers
from swarmrt.lab.swarm.part import Part
from swarmrt.lab.swarm.parts import Bootstrap, Peer, Trainer
from swarmrt.runtime.faults.failpoints import as_variables, rules_for
from swarmrt.runtime.launching.launching import Launcher
from swarmrt.runtime.trainer.folders import write_config

POLL_S = 0.02
START_S = 120.0  # for the directory node to come up, even on a loaded machine
LEAVE_S = 10.0  # for processes to leave by themselves, and after each SIGTERM


class LaunchedSwarm:
    """A directory node, peers and a trainer. As a context manager it starts and ends them.

    However the block ends, no process is left.
    """

    bootstrap: Bootstrap
    trainer: Trainer

    def __init__(
        self, config: RunConfig, replicas: Sequence[int], run_dir: Path, options: Options
    ) -> None:
        """Start nothing. `replicas` are the peers to begin with, by stage."""
        self.config, self.replicas, self.run_dir = config, tuple(replicas), run_dir
        self._options = options
        processes = (len(options.processes) or sum(replicas)) + options.movers
        self._threads = options.threads or max(1, (os.cpu_count() or 1) // processes)
        self.faults = FaultRecord(run_dir)
        self.papers = LocalPapers(config.run.name)
        self._launcher: Launcher | None = None
        self._peers: list[Peer] = []
        self.parts: list[Part] = []

    def __enter__(self) -> Self:
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

    def peers(self, stage: int | None = None) -> list[Peer]:
        """Return the live ones, oldest first; paused and draining ones too."""
        return [p for p in self._peers if p.is_alive and stage in (None, *p.stages)]

    def ended_peers(self) -> list[Peer]:
        return [peer for peer in self._peers if not peer.is_alive]

    @property
    def is_served(self) -> bool:
        """Return whether each stage has a live peer, or one that goes where it helps most."""
        moves = any(peer.is_mover for peer in self.peers())
        return moves or all(self.peers(stage) for stage in range(len(self.replicas)))

    def start_bootstrap(self) -> None:
        """Start the directory node, the first time and after it was killed. It joins whoever is
        there."""
        papers = self.papers.of_guest(self._addresses())
        self.bootstrap.start(["bootstrap", "--json"], papers)

    def wait_for_peers(self) -> None:
        """Wait for them to leave, as they do when the trainer has told them that all is over."""
        for peer in self.peers():
            peer.resume()
        _wait_for(self._peers)

    def close(self) -> None:
        """End all processes: SIGTERM first, SIGKILL after a while. The directory comes last."""
        directory = [part for part in self.parts if isinstance(part, Bootstrap)]
        try:
            _ask_to_leave([part for part in self.parts if part not in directory])
            _ask_to_leave(directory)
        finally:  # also when a second Ctrl-C interrupts the waiting
            for part in self.parts:
                part.close()
            if self._launcher is not None:
                self._launcher.close()
            for part in self.parts:
                for text in part.never_fired():
                    print(f"swarmrt: {part.name}: {text}", file=sys.stderr)
            self._wait_for_daemons()

    # ------------------------------------------------------------------ starting

    def _start(self) -> None:
        """Start all of them. Their keys are made while the launcher loads the libraries."""
        write_config(self.run_dir, self.config)
        self._launcher = launcher = Launcher(str(self.run_dir), self._options.forks)
        note, folder = self.faults.note, self.run_dir / "bootstrap"
        self.bootstrap = Bootstrap("bootstrap", folder, folder / "identity", launcher, note)
        self.parts.append(self.bootstrap)
        alone = [(stage,) for stage, number in enumerate(self.replicas) for _ in range(number)]
        peers = [self._new_peer(stages) for stages in self._options.processes or alone]
        spares = [(stage,) for stage, n in enumerate(self._options.spares) for _ in range(n)]
        peers += [self._new_peer(stages, is_spare=True) for stages in spares]
        peers += [self._new_peer(()) for _ in range(self._options.movers)]
        folder, identity = self.run_dir / "trainer", self.run_dir / "identity"
        self.trainer = Trainer("trainer", folder, identity, launcher, note, self._resume)
        self.trainer.is_shown = self._options.is_trainer_shown
        self.parts.append(self.trainer)
        self.bootstrap.log.unlink(missing_ok=True)  # of a run that is resumed
        self.start_bootstrap()
        self._wait_for_bootstrap()
        join = [self.bootstrap.address]
        for peer in peers:
            self._start_peer(peer, join)
        replicas = ",".join(str(max(1, number)) for number in self.replicas)
        self._start_trainer(join, "--replicas", replicas, *self._options.trainer_arguments)

    def _wait_for_bootstrap(self) -> None:
        deadline = time.monotonic() + START_S
        while '"join"' not in self.bootstrap.output():
            if not self.bootstrap.is_alive:
                raise RunError(f"the directory node did not start: {self.bootstrap.cause()}")
            if time.monotonic() > deadline:
                raise RunError(
                    f"the directory node said nothing for {START_S:.0f} s; see {self.bootstrap.log}"
                )
            time.sleep(POLL_S)

    def _new_peer(self, stages: tuple[int, ...], *, is_spare: bool = False) -> Peer:
        assert self._launcher is not None, "the swarm has not been started"
        number = sum(peer.stages == stages for peer in self._peers)
        what = ("mover", "stage")[len(stages)] if len(stages) < 2 else "stages"
        name = "-".join([what, *map(str, stages), str(number)])
        folder = self.run_dir / "peers" / name
        peer = Peer(folder, stages, number, self._launcher, self.faults.note, is_spare=is_spare)
        self._peers.append(peer)
        self.parts.append(peer)
        return peer

    def _start_peer(
        self,
        peer: Peer,
        join: Sequence[str],
        failpoints: str = "",
        device: str | None = None,
        more: Sequence[str] = (),
    ) -> None:
        options, device = self._options, device or self._options.device
        arguments = ["serve", "--wait"]
        among = peer.stages or ("auto",)
        arguments += [word for stage in among for word in ("--stage", str(stage))]
        arguments += ["--spare"] * peer.is_spare
        arguments += ["--threads", str(self._threads), "--log-dir", str(peer.folder)]
        arguments += ["--device", device, *consent(self.config)]
        if options.speeds is not None:
            speeds = options.speeds[0 if peer.is_mover else peer.stage]
            arguments += ["--emulate", str(speeds[peer.number % len(speeds)])]
        place = -1 if peer.is_mover else peer.stage
        variables = options.variables.get((place, peer.number), {})
        alone = device != "cpu" or bool(variables)
        variables = {**variables, **as_variables(rules_for("peer", options.failpoints))}
        papers = self.papers.of_guest(join)
        peer.start([*arguments, *self._far(), *more], papers, failpoints, alone, variables)

    def _start_trainer(self, join: Sequence[str], *more: str, failpoints: str = "") -> None:
        arguments = ["train", str(self.run_dir / "config.toml"), "--run-dir", str(self.run_dir)]
        arguments += [*self._far(), *(word for one in join for word in ("--join", one)), *more]
        variables = as_variables(rules_for("trainer", self._options.failpoints))
        papers = self.papers.of_owner()
        self.trainer.start(arguments, papers, failpoints, variables=variables)

    def _far(self) -> list[str]:
        """Return the options of a process that is far from the others, or has a narrow link."""
        delay_s, rate = self._options.link_delay_s, self._options.link_rate
        far = ["--link-delay", str(delay_s)] if delay_s else []
        return far if rate is None else [*far, "--link-rate", rate]

    def _resume(self, failpoints: str) -> None:
        resume = ("--resume", str(self.run_dir), "--replicas", "1", "--wait")
        self._start_trainer(self._addresses(), *resume, failpoints=failpoints)

    def _addresses(self) -> list[str]:
        """Return the addresses of all processes that would answer a newcomer now."""
        return [
            part.address
            for part in self.parts
            if part.is_alive and part.listens and not (isinstance(part, Peer) and part.is_paused)
        ]

    # ------------------------------------------------------------------ ending

    def _wait_for_daemons(self) -> None:
        """Wait for the daemons of killed processes, which go by themselves, an instant later."""
        deadline = time.monotonic() + LEAVE_S
        while left := [part.name for part in self.parts if part.listens]:
            if time.monotonic() > deadline:
                print(f"swarmrt: still listening: {', '.join(left)}", file=sys.stderr)
                return
            time.sleep(POLL_S)


def _ask_to_leave(parts: Sequence[Part]) -> None:
    """SIGTERM, which asks to drain, and after a while once more, which asks to leave at once."""
    for _ in range(2):
        for part in parts:
            if isinstance(part, Peer):
                part.resume()  # a paused one cannot leave
            part.ask_to_leave()
        _wait_for(parts)
    for part in parts:
        if part.is_alive:
            print(f"swarmrt: {part.name} did not leave; killing it", file=sys.stderr)


def _wait_for(parts: Sequence[Part]) -> None:
    """Wait for all of them to end, but not longer than they may take."""
    deadline = time.monotonic() + LEAVE_S
    for part in parts:
        part.wait(deadline - time.monotonic())
