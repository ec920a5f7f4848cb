"""A part of a swarm on this machine: a `swarmrt` process that can be made to fail."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from swarmrt.errors import RunError
from swarmrt.lab.swarm.causes import cause_of
from swarmrt.lab.swarm.ports import free_port
from swarmrt.log_files import read_lines
from swarmrt.runtime.access.identity import open_identity
from swarmrt.runtime.faults.failpoints import Rule, as_variables, read_rules, unfired
from swarmrt.runtime.launching.launching import Launched, Launcher
from swarmrt.runtime.links.first_contact import MULTISTREAM

POLL_S = 0.05
KILL_S = 60.0  # for the kernel to end a killed process
LAST_LINES = 10

Note = Callable[[str], None]


class Part:
    """A process, with its output in a file and its identity kept over restarts.

    What is done to it while it lives is told to `note`, by the kind of fault.
    """

    killed = "kill"  # the kind of fault that killing it is

    def __init__(
        self, name: str, folder: Path, identity: Path, launcher: Launcher, note: Note
    ) -> None:
        self.name, self.folder, self._identity = name, folder, identity
        self._launcher, self._note = launcher, note
        self.peer_id = open_identity(identity).peer_id
        self.address = ""  # of the last start
        self.log = folder / "output.log"
        self.is_shown = False  # what it prints goes to our own output then
        self.is_draining = False
        self._port = 0
        self._process: Launched | None = None
        self._failpoints: list[tuple[list[Rule], float]] = []  # and since when, by start

    def __repr__(self) -> str:
        return f"<{self.name}: {'running' if self.is_alive else 'ended'}>"

    @property
    def pid(self) -> int:
        assert self._process is not None, "it has not been started"
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code: None while it runs; negative when a signal ended it."""
        return self._process.poll() if self._process is not None else None

    @property
    def listens(self) -> bool:
        """Return whether its daemon can be connected to. It may outlive the process for an
        instant."""
        with socket.socket() as probe:
            return self._port > 0 and probe.connect_ex(("127.0.0.1", self._port)) == 0

    def answers(self, within_s: float = 1.0) -> bool:
        """Return whether its daemon says something to whoever connects to it."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), within_s) as connection:
                connection.settimeout(within_s)
                connection.sendall(MULTISTREAM)
                return bool(connection.recv(1))
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self._suffers(self.killed)
        self._end()

    def terminate(self) -> None:
        """SIGTERM: it drains and leaves."""
        self._suffers("term")
        self.ask_to_leave()

    def ask_to_leave(self) -> None:
        """Terminate it when all is over, which is no fault."""
        self.is_draining = True
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal. Nothing happens when it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def tell(self, command: Mapping[str, object]) -> None:
        """Write a line to its standard input. Raises RunError when it has ended."""
        assert self._process is not None and self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            raise RunError(f"{self.name} has ended and takes no commands") from None

    def wait(self, timeout_s: float) -> bool:
        """Wait until it ends; return whether it has within this time."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            return False
        return True

    def output(self) -> str:
        """The text that it has printed."""
        return "".join(read_lines(self.log)) if self.log.exists() else ""

    def cause(self) -> str:
        """Return why it has ended, for people."""
        return cause_of(self.exit_code or 0, self.output())

    def last_lines(self) -> str:
        lines = self.output().strip().splitlines()
        return "\n".join(lines[-LAST_LINES:]) or "no output"

    def start(
        self,
        arguments: Sequence[str],
        papers: Mapping[str, str],
        failpoints: str = "",
        alone: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start it with these papers, as `Launcher.start` does.

        `failpoints` are rules as SWARMRT_FAILPOINTS takes them; raises UsageError for bad ones.

        It listens at a port that was free just now, at a new one with every start, because the
        daemon of an earlier one may still hold its own; a directory node, at which others join,
        waits for its own.
        """
        rules = read_rules(failpoints)
        self._failpoints.append((rules, time.time()))
        self._port, self.is_draining = self._next_port(), False
        listen = f"/ip4/127.0.0.1/tcp/{self._port}"
        self.address = f"{listen}/p2p/{self.peer_id}"
        arguments = [*arguments, "--listen", listen, "--identity", str(self._identity)]
        variables = {**(variables or {}), **as_variables(rules)}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._close_input()
        with nullcontext() if self.is_shown else self.log.open("ab") as output:
            self._process = self._launcher.start(arguments, papers, output, variables, alone)

    def _next_port(self) -> int:
        return free_port()

    def never_fired(self) -> list[str]:
        """Return a line for each failpoint of its own that has never fired, since it was on."""
        return [
            line
            for rules, since in self._failpoints
            for line in unfired(rules, [self.folder], since)
        ]

    def close(self) -> None:
        """Kill it if need be, and let go of it."""
        self._end()
        self._close_input()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(KILL_S)

    def _suffers(self, kind: str) -> None:
        if self.is_alive:
            self._note(kind)

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
