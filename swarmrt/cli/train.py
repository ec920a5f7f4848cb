"""The command `swarmrt train`: the trainer, with its view."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarmrt.cli.bootstrap import IDENTITY, JOIN, LINK_DELAY, WITH_PARENT
from swarmrt.cli.configs import ALLOW_CHANGE, SET, TRIAL
from swarmrt.cli.papers import (
    DELEGATION,
    OWNER,
    PAPERS_ON_STDIN,
    owner_signer,
    signer_of_parent,
)
from swarmrt.cli.reach import ANNOUNCE, LISTEN, MAX_MBPS, PORT, UPNP, place_of_trainer
from swarmrt.config import RunConfig, load_config
from swarmrt.errors import CheckpointError, UsageError, is_disk_full
from swarmrt.foreign import for_terminal
from swarmrt.run_identity import library_notes, pinned, without_pins
from swarmrt.runtime.trainer.folders import (
    claimed,
    new_run_dir,
    read_run,
    refuse_changes,
    refuse_used,
    write_config,
    write_run,
)

if TYPE_CHECKING:
    from swarmrt.data import Data
    from swarmrt.observe.live.plain import PlainView
    from swarmrt.observe.live.progress import Progress
    from swarmrt.observe.live.table import LiveView
    from swarmrt.runtime.checkpoints.checkpoint import Checkpoint

JSON = typer.Option(False, "--json", help="Print the result as one JSON object, last.")
RESUME = typer.Option(
    None, "--resume", metavar="RUN_DIR", help="Continue from this run's newest checkpoint."
)
REPLICAS = typer.Option(
    None, "--replicas", metavar="2,2,2", help="Replicas of each stage to wait for."
)

OPEN_WARNING = (
    'run.access is "open": anybody may come in, read weights and training text as a member can, '
    "and spoil the run; work is not checked"
)


def train(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    join: list[str] = JOIN,
    overrides: list[str] = SET,
    replicas: str | None = REPLICAS,
    run_dir: Path | None = typer.Option(None, metavar="DIR", help="Default: runs/NAME-TIME."),
    resume: Path | None = RESUME,
    identity: Path | None = IDENTITY,
    listen: list[str] = LISTEN,
    port: str | None = PORT,
    announce: list[str] = ANNOUNCE,
    upnp: bool = UPNP,
    max_mbps: float | None = MAX_MBPS,
    wait: bool = typer.Option(False, "--wait", help="Wait for the directory to be joined."),
    trial: bool = TRIAL,
    allow_change: list[str] = ALLOW_CHANGE,
    as_json: bool = JSON,
    owner: Path | None = OWNER,
    delegation: Path | None = DELEGATION,
    link_delay_s: float = LINK_DELAY,
    with_parent: bool = WITH_PARENT,
    papers_on_stdin: bool = PAPERS_ON_STDIN,
) -> None:
    """Publish a run, feed it, and keep its ledger. Without --join it starts a directory."""
    from swarmrt.cli.running import run
    from swarmrt.data import open_data
    from swarmrt.model.builders import BUILT_IN
    from swarmrt.observe.live.plots import plot_loss
    from swarmrt.observe.live.progress import Progress
    from swarmrt.runtime.access.invitations import line_to_print
    from swarmrt.runtime.faults.failpoints import VARIABLE, parse_failpoints
    from swarmrt.runtime.faults.faults import LinkFaults
    from swarmrt.runtime.trainer.trainer import TrainOptions
    from swarmrt.runtime.trainer.trainer import train as run_trainer
    from swarmrt.runtime.trainer.trial import try_model
    from swarmrt.scheduler.instructions import Report

    config, known, checkpoint = load_run(load_config(path, overrides), resume, allow_change)
    name = config.run.name
    signer = signer_of_parent(name) if papers_on_stdin else owner_signer(name, owner, delegation)
    numbers = parse_replicas(replicas, config)
    data = open_data(config)
    config = identified(config, data, known, checkpoint)
    run_dir = run_dir or resume or new_run_dir(config)
    with claimed(run_dir):
        check_folder(run_dir, resume, config, known, allow_change)
        write_config(run_dir, config)
        write_run(run_dir, config)
        place = place_of_trainer(run_dir, join, listen, port, announce, upnp)
        start = checkpoint.version if checkpoint else 0
        progress = Progress(config, run_dir, start, data.unigram_loss())
        faults = LinkFaults(link_delay_s) if with_parent or link_delay_s else None
        with open_view(progress, as_json) as view:
            view.note(f"run folder {run_dir}")
            view.note(f"data: {data.description}")
            view.note(f"stages: {', '.join(map(str, config.stages.layers or ()))} layers")
            for note in library_notes(known, "what was trained before") if known else ():
                view.note(note)
            if trial and config.model.kind != BUILT_IN:
                for note in try_model(config, data).notes:
                    view.note(note)
            options = TrainOptions(
                run_dir,
                signer,
                tuple(join),
                place,
                identity,
                numbers,
                resume=resume is not None,
                checkpoint=checkpoint,
                failpoints=parse_failpoints(os.environ.get(VARIABLE, ""), run_dir / "trainer"),
                faults=faults,
                max_mbps=max_mbps,
                wait=wait,
                say=view.note,
            )

            def report(what: Report) -> None:
                progress.add(what)
                view.update(what)

            def published(addresses: Sequence[str]) -> None:
                if papers_on_stdin:
                    return  # whoever has started this process invites by itself
                line = line_to_print(run_dir, signer, config.run.access, (*addresses, *join))
                view.note(f"peers join with:\n  swarmrt serve '{line}' --stage N")
                if config.run.access == "open":
                    view.note(OPEN_WARNING)

            reason = run(
                lambda switch: run_trainer(config, data, options, switch, report, published),
                with_parent=with_parent,
                faults=faults,
            )
        for text in options.failpoints.never_fired():
            say(text, as_json)
        progress.close()
        if progress.losses:
            plot_loss(progress, run_dir / "loss.png")
        say(f"{reason or 'stopped'} at step {progress.version}", as_json)
        if progress.losses:
            for line in progress.closing_lines():
                say(line, as_json)
        say(f"everything is in {run_dir}", as_json)
        if as_json:
            print(progress.summary.to_json(), flush=True)


def open_view(progress: Progress, as_json: bool) -> LiveView | PlainView:
    """A live table in a terminal, plain lines elsewhere."""
    from rich.console import Console

    from swarmrt.observe.live.plain import PlainView
    from swarmrt.observe.live.table import LiveView

    console = Console()
    if console.is_terminal and not as_json:
        return LiveView(progress, console)
    return PlainView(progress, lambda text: say(text, as_json))


def say(text: str, as_json: bool) -> None:
    """Print for people. Under --json, standard output is for the object alone.

    On a full disk it waits in the stream's buffer, or is lost: that ends no run.
    """
    try:
        print(for_terminal(text), file=sys.stderr if as_json else sys.stdout, flush=True)
    except OSError as error:
        if not is_disk_full(error):
            raise


def load_run(
    config: RunConfig, resume: Path | None, allowed: Collection[str]
) -> tuple[RunConfig, RunConfig | None, Checkpoint | None]:
    """Return the configuration, with the cut of the run to continue; what that run was when it went
    on last, if it is written down; and its newest checkpoint, checked whole, if it has one."""
    from swarmrt.runtime.checkpoints.checkpoint import has_begun, newest_checkpoint

    if resume is None:
        if allowed:
            raise UsageError("--allow-change belongs to --resume")
        return config, None, None
    checkpoint = None if has_begun(resume) else newest_checkpoint(resume)
    known = read_run(resume) or (checkpoint.config if checkpoint is not None else None)
    layers = known.stages.layers if known is not None else None
    if layers is not None:
        if config.stages.layers not in (None, layers) or config.num_stages != len(layers):
            raise CheckpointError(
                f"{resume}: this run has {len(layers)} stages of {list(layers)} layers, and goes "
                "on with them"
            )
        config = config.with_stage_layers(layers)
    return without_pins(config, allowed), known, checkpoint


def identified(
    config: RunConfig, data: Data, known: RunConfig | None, checkpoint: Checkpoint | None
) -> RunConfig:
    """Return the configuration with the cut, and all that the run is by content. Raises UsageError
    when a state of what the run was cannot be one of it."""
    from swarmrt.model.builders import look_here
    from swarmrt.model.code import code_of
    from swarmrt.model.partition import resolve
    from swarmrt.model.same_state import check_same_state, check_state_fits

    look_here(config)
    code = code_of(config)  # before the builder runs, as at a peer
    if known is not None:
        check_same_state(known, config)
        if checkpoint is not None and known.model.code not in (None, code):
            check_state_fits(config, checkpoint.load())
    return pinned(resolve(config), code, data.fingerprint)


def check_folder(
    run_dir: Path,
    resume: Path | None,
    config: RunConfig,
    known: RunConfig | None,
    allowed: Collection[str],
) -> None:
    """Check that the folder is this run's. Raises UsageError."""
    if resume is None or not _is_one(resume, run_dir):
        refuse_used(run_dir)
    if resume is not None and known is not None:
        refuse_changes(known, config, allowed, resume)


def _is_one(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def parse_replicas(text: str | None, config: RunConfig) -> tuple[int, ...] | None:
    """Read `2,3,2`, or one number for every stage."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--replicas {text}: write one number a stage, like 2,2,2") from None
    if len(numbers) == 1:
        numbers *= config.num_stages
    if len(numbers) != config.num_stages or min(numbers) < 1:
        raise UsageError(
            f"--replicas {text}: the run has {config.num_stages} stages, each needs at least one"
        )
    return numbers
