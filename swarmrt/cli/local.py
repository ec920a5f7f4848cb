"""The command `swarmrt local`: a whole swarm on this machine, each part a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from swarmrt.cli.configs import ALLOW_CHANGE, SET, TRIAL
from swarmrt.cli.train import (
    JSON,
    REPLICAS,
    RESUME,
    check_folder,
    identified,
    load_run,
    parse_replicas,
    say,
)
from swarmrt.config import RunConfig, dump_toml, load_config
from swarmrt.errors import RunError
from swarmrt.foreign import for_terminal
from swarmrt.log_files import read_lines
from swarmrt.runtime.faults.failpoints import (
    VARIABLE,
    Rule,
    as_variables,
    read_rules,
    rules_for,
    unfired,
)
from swarmrt.runtime.launching.launching import Launched, Launcher, consent
from swarmrt.runtime.process.stopping import StopSwitch
from swarmrt.runtime.reach.place import LOOPBACK_HOST
from swarmrt.runtime.trainer.folders import claimed, new_run_dir, write_config
from swarmrt.scheduler.failpoints import Role

START_S = 120.0  # for the directory node to come up, even on a loaded machine
POLL_S = 0.02
SAID = "swarmrt: "  # how a command's word about its own end begins
LEAVE_S = 20.0  # for a child to leave by itself, and again after SIGTERM


def local(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    replicas: str | None = REPLICAS,
    steps: int | None = typer.Option(None, min=1, help="Overrides run.steps."),
    overrides: list[str] = SET,
    run_dir: Path | None = typer.Option(None, metavar="DIR", help="Default: runs/NAME-TIME."),
    resume: Path | None = RESUME,
    threads: int | None = typer.Option(None, min=1, help="CPU threads of each peer."),
    trial: bool = TRIAL,
    allow_change: list[str] = ALLOW_CHANGE,
    as_json: bool = JSON,
) -> None:
    """Directory, peers and trainer, each a real process on this machine, for trying things out."""
    from swarmrt.cli.running import run
    from swarmrt.data import open_data

    rules = read_rules(os.environ.get(VARIABLE, ""))
    if steps is not None:
        overrides = [*overrides, f"run.steps={steps}"]
    config, known, checkpoint = load_run(load_config(path, overrides), resume, allow_change)
    numbers = parse_replicas(replicas, config) or (1,) * config.num_stages
    config = identified(config, open_data(config), known, checkpoint)
    run_dir = run_dir or resume or new_run_dir(config)
    with claimed(run_dir):  # as the trainer will, who does the rest
        check_folder(run_dir, resume, config, known, allow_change)
        write_config(run_dir, config)
    cores = os.cpu_count() or 1
    threads = threads or max(1, cores // sum(numbers))
    options = ["--resume", str(resume)] if resume is not None else []
    options += ["--json"] * as_json + ["--no-trial"] * (not trial)
    options += [part for name in allow_change for part in ("--allow-change", name)]
    swarm = LocalSwarm(config, run_dir, numbers, threads, options, rules)
    code = run(swarm.run)
    for text in swarm.never_fired():
        say(text, as_json)
    if code:
        raise typer.Exit(code)


@dataclass(frozen=True)
class Child:
    name: str
    process: Launched
    log: Path | None
    stage: int | None  # of a peer


class LocalSwarm:
    """Starts the processes, and sees to it that none of them is left."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        replicas: tuple[int, ...],
        threads: int,
        trainer_options: list[str],
        failpoints: Sequence[Rule] = (),
    ) -> None:
        from swarmrt.lab.swarm.papers import LocalPapers

        self.config, self.run_dir, self.replicas = config, run_dir, replicas
        self._threads, self._trainer_options = threads, trainer_options
        self._failpoints, self._began_at = failpoints, time.time()
        self._papers = LocalPapers(config.run.name)
        self._children: list[Child] = []
        self._launcher = Launcher(str(run_dir))

    async def run(self, switch: StopSwitch) -> int:
        """The trainer's exit code."""
        try:
            join = await self._start_bootstrap()
            for stage, number in enumerate(self.replicas):
                for replica in range(number):
                    self._start_peer(stage, replica, join)
            trainer = self._start_trainer(join)
            with switch.calls(lambda _: _signal(trainer.process, signal.SIGINT)):
                code = await self._watch(trainer)
            if switch.thrown:
                return max(code, 0)  # negative: it had not even begun
            if code == 0:
                await self._wait_for_peers()
            return abs(code)
        finally:
            try:
                await self._end_all()
            finally:
                self._launcher.close()

    def never_fired(self) -> list[str]:
        """Return a line for each failpoint that has fired in no peer; the trainer tells its own."""
        rules = rules_for("peer", self._failpoints)
        return unfired(rules, self.run_dir.glob("peers/*"), self._began_at)

    async def _start_bootstrap(self) -> str:
        log = self.run_dir / "bootstrap" / "output.log"
        log.unlink(missing_ok=True)  # of a run that is resumed
        arguments, papers = ["bootstrap", "--json"], self._papers.of_guest([])
        try:
            async with asyncio.timeout(START_S):
                while not self._launcher.is_ready():
                    await asyncio.sleep(POLL_S)
                child = self._start("bootstrap", arguments, papers, log)
                while (address := _address_in(log)) is None:
                    if child.process.poll() is not None:
                        raise RunError(f"the directory node did not start: {cause_in(log)}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise RunError(
                f"the directory node said nothing for {START_S:.0f} s; see {log}"
            ) from None
        return address

    def _start_peer(self, stage: int, replica: int, join: str) -> None:
        name = f"stage-{stage}-{replica}"
        folder = self.run_dir / "peers" / name
        arguments = ["serve", "--stage", str(stage), "--wait", *consent(self.config)]
        arguments += ["--threads", str(self._threads), "--log-dir", str(folder)]
        papers = self._papers.of_guest([join])
        self._start(name, arguments, papers, folder / "output.log", "peer", stage)

    def _start_trainer(self, join: str) -> Child:
        effective = self.run_dir / "config.toml"
        effective.write_text(dump_toml(self.config), encoding="utf-8")
        arguments = ["train", str(effective), "--join", join, "--run-dir", str(self.run_dir)]
        arguments += ["--replicas", ",".join(map(str, self.replicas))]
        arguments += self._trainer_options
        return self._start("trainer", arguments, self._papers.of_owner(), None, "trainer")

    def _start(
        self,
        name: str,
        arguments: list[str],
        papers: Mapping[str, str],
        log: Path | None,
        role: Role | None = None,
        stage: int | None = None,
    ) -> Child:
        """Start one more process, with the failpoints of its role. Without a log it has our own
        output."""
        arguments = [*arguments, "--listen", LOOPBACK_HOST]
        variables = as_variables(rules_for(role, self._failpoints)) if role is not None else {}
        if log is None:
            process = self._launcher.start(arguments, papers, None, variables)
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = self._launcher.start(arguments, papers, output, variables)
        child = Child(name, process, log, stage)
        self._children.append(child)
        return child

    async def _watch(self, trainer: Child) -> int:
        """Wait until the trainer ends. A child that fails before it stops the trainer.

        One that is killed does not, which is said: the others may go on without it. Without any
        peer of a stage they cannot, and nobody else will come.
        """
        waits = {asyncio.ensure_future(_ended(c)): c for c in self._children}
        trainer_wait = next(wait for wait, child in waits.items() if child is trainer)
        pending = set(waits)
        failed: Child | None = None
        try:
            while not trainer_wait.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for wait in done:
                    child = waits[wait]
                    if failed is not None or child is trainer:
                        continue
                    was_killed = wait.result() < 0
                    if was_killed:
                        print(f"swarmrt: {child.name}: {_end_of(child)}", file=sys.stderr)
                    if wait.result() > 0 or (was_killed and not self._is_served(child.stage)):
                        failed = child
                        _signal(trainer.process, signal.SIGTERM)
        finally:
            for wait in pending:
                wait.cancel()
        if failed is not None and failed.log is not None:
            why = f"{_end_of(failed)}; all that it said is in {failed.log}"
            print(f"swarmrt: {failed.name} failed: {why}", file=sys.stderr)
            return max(failed.process.returncode or 1, 1)
        return trainer_wait.result()

    def _is_served(self, stage: int | None) -> bool:
        """Return whether any peer of the stage is left; what is of no stage does not count."""
        peers = [child for child in self._children if child.stage == stage]
        return stage is None or any(child.process.poll() is None for child in peers)

    async def _wait_for_peers(self) -> None:
        """The trainer has told them that the run is over."""
        peers = [_ended(child) for child in self._children if child.name != "bootstrap"]
        await _within(LEAVE_S, *peers)

    async def _end_all(self) -> None:
        """End whatever is left; the directory last, so that the others can take leave of it."""
        directory = [child for child in self._children if child.name == "bootstrap"]
        await _end([child for child in self._children if child not in directory])
        await _end(directory)


async def _end(children: list[Child]) -> None:
    """SIGTERM, and after a while SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = [child for child in children if child.process.poll() is None]
        for child in left:
            if number == signal.SIGKILL:
                print(f"swarmrt: {child.name} did not leave; killing it", file=sys.stderr)
            _signal(child.process, number)
        await _within(LEAVE_S, *(_ended(child) for child in left))


async def _ended(child: Child) -> int:
    """Return the exit code, negative for a signal."""
    while (code := child.process.poll()) is None:
        await asyncio.sleep(POLL_S)
    return code


async def _within(seconds: float, *waits: Coroutine[object, object, int]) -> None:
    """Wait for all of them, but not longer than this."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()


def _signal(process: Launched, number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _address_in(log: Path) -> str | None:
    """Return what the directory node has printed, once its line is whole."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        if line.startswith('{"join"') and line.endswith("\n"):
            return str(json.loads(line)["join"])
    return None


def _end_of(child: Child) -> str:
    """Return why a process has ended: by which signal, or what it has said of it."""
    code = child.process.returncode or 0
    if code >= 0:
        assert child.log is not None
        return cause_in(child.log)
    name = signal.Signals(-code).name
    hint = ", as systems do with whoever takes too much memory" if name == "SIGKILL" else ""
    return f"it was killed by {name}{hint}"


def cause_in(log: Path) -> str:
    """Return why a process has ended: what it said of it, or its last words."""
    lines = "".join(read_lines(log)).strip().splitlines()
    causes = [line for line in lines if line.startswith(SAID)]
    last = (causes or lines or ["it said nothing"])[-1]
    return for_terminal(last).removeprefix(SAID)
