"""The command `swarmrt train`: the trainer, with its view."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarmrt.cli.options.papers import (
    DELEGATION,
    OWNER,
    PAPERS_ON_STDIN,
    owner_signer,
    signer_of_parent,
)
from swarmrt.cli.options.processes import IDENTITY, JOIN, LINK_DELAY, WITH_PARENT
from swarmrt.cli.options.rates import LINK_RATE, parse_link_rate
from swarmrt.cli.options.reach import ANNOUNCE, LISTEN, PORT, UPNP, place_of_trainer
from swarmrt.cli.options.runs import ALLOW_CHANGE, REPLICAS, RESUME, SET, TRIAL, parse_replicas
from swarmrt.cli.options.saying import JSON, say
from swarmrt.cli.swarm.beginning import check_folder, identified, island_notes, load_run
from swarmrt.config_toml import load_config
from swarmrt.run_identity import library_notes
from swarmrt.runtime.trainer.folders import claimed, new_run_dir, write_config, write_run

if TYPE_CHECKING:
    from swarmrt.observe.live.plain import PlainView
    from swarmrt.observe.live.progress import Progress
    from swarmrt.observe.live.table import LiveView

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
    link_rate: str | None = LINK_RATE,
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
    from swarmrt.cli.process.running import run
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

    link_bytes_per_s = parse_link_rate(link_rate)
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
            for note in island_notes(config, numbers or (1,) * config.num_stages):
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
                link_bytes_per_s=link_bytes_per_s,
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
