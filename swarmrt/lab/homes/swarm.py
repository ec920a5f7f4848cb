"""A swarm whose processes are on the machines of an internet made of network namespaces."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from swarmrt.errors import RunError, UsageError
from swarmrt.lab.homes.namespaces import Host
from swarmrt.lab.swarm.commits import Commits
from swarmrt.runtime.launching.launching import COMMAND, environment

POLL_S = 0.2
PATIENCE_S = 240.0
LEAVE_S = 30.0


class HomeSwarm:
    """Processes on machines, and the run's folder on the trainer's. As a context manager it ends
    the processes."""

    def __init__(self, folder: Path, run: str, leave_s: float = LEAVE_S) -> None:
        """Take the run's configuration as text, and how long the processes may take to leave.
        Raises UsageError."""
        self.folder, self.run_dir = folder, folder / "run"
        if self.run_dir.exists():
            raise UsageError(f"{self.run_dir}: holds a run already; choose another folder")
        self.processes: list[subprocess.Popen[bytes]] = []
        self._leave_s = leave_s
        self._config = folder / "run.toml"
        self._config.write_text(run, encoding="utf-8")
        self._commits = Commits(self.run_dir / "metrics.jsonl")

    def __enter__(self) -> HomeSwarm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, host: Host, name: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Run a command on a machine, which leaves when we are gone; its output is in
        FOLDER/NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                host.command(*COMMAND, *arguments, "--with-parent"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(name),
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def _environment(self, name: str) -> dict[str, str]:
        """Return ours with a home of its own: there are owner keys, and runs that were joined."""
        home = self.folder / name
        folders = {"HOME": home, "XDG_CONFIG_HOME": home / "config", "XDG_DATA_HOME": home / "data"}
        threads = {"OMP_NUM_THREADS": "1"}
        return environment() | threads | {name: str(path) for name, path in folders.items()}

    def said(self, name: str) -> str:
        """Return the text that a process has printed."""
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def train(self, host: Host, *arguments: object) -> subprocess.Popen[bytes]:
        """Start the trainer."""
        where = ("--run-dir", self.run_dir)
        return self.start(host, "trainer", "train", self._config, *where, *arguments)

    def lines(self) -> list[str]:
        """Return the join lines that the trainer has printed, once there is one."""
        self.wait(lambda: "swarmrt serve '" in self.said("trainer"), "the trainer's join line")
        return re.findall(r"swarmrt serve '(\S+)'", self.said("trainer"))

    def serve(
        self, host: Host, stage: int, *arguments: object, name: str = ""
    ) -> subprocess.Popen[bytes]:
        """Start a peer, whose log is in `log_of` its name, by default that of its stage."""
        name = name or f"stage-{stage}"
        serve = ("serve", self.lines()[0], "--stage", stage)
        return self.start(host, name, *serve, "--log-dir", self.log_of(name).parent, *arguments)

    def log_of(self, name: str) -> Path:
        return self.run_dir / "peers" / name / "events.jsonl"

    def doctor(self, host: Host, *arguments: object) -> dict[str, dict[str, Any]]:
        """Return what the doctor finds on a machine, which it prints last. Raises RunError."""
        done = subprocess.run(
            host.command(*COMMAND, "doctor", self.lines()[0], "--json", *arguments),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=self._environment("doctor"),
            check=False,
        )
        if not done.stdout:
            raise RunError(f"the doctor found nothing: {done.stderr}")
        return {one["what"]: one for one in json.loads(done.stdout.splitlines()[-1])["findings"]}

    @property
    def version(self) -> int:
        """The steps committed."""
        return self.commits.version

    @property
    def commits(self) -> Commits:
        """Return all that the metrics say, up to now."""
        self._commits.read()
        return self._commits

    def wait_for_step(self, step: int) -> None:
        self.wait(lambda: self.version >= step, f"step {step}")

    def wait(
        self, condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S
    ) -> None:
        """Wait until this holds. Raises RunError when a process ends before, or time runs out."""
        deadline = time.monotonic() + patience_s
        while not condition():
            ended = [p.args for p in self.processes if p.poll() not in (None, -signal.SIGKILL)]
            if ended:
                raise RunError(f"{ended} ended before {what}\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise RunError(f"waited {patience_s:.0f} s for {what}\n{self._last_lines()}")
            time.sleep(POLL_S)

    def _last_lines(self) -> str:
        logs = (self.said(path.stem).splitlines() for path in sorted(self.folder.glob("*.log")))
        return "\n".join(line for lines in logs for line in lines[-10:])

    def close(self) -> None:
        """Ask all to leave, and kill who does not."""
        running = [process for process in self.processes if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._leave_s
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
