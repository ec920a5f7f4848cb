"""The command `swarmrt local`: a whole swarm on this machine, each part a process of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import typer

from swarmrt.cli.options.rates import LINK_RATE, parse_link_rate
from swarmrt.cli.options.runs import (
    ALLOW_CHANGE,
    REPLICAS,
    RESUME,
    SET,
    SPARES,
    TRIAL,
    parse_processes,
    parse_replicas,
    parse_spares,
)
from swarmrt.cli.options.saying import JSON, say
from swarmrt.cli.swarm.beginning import check_folder, identified, load_run
from swarmrt.cli.swarm.watching import watch
from swarmrt.config_toml import load_config
from swarmrt.runtime.faults.failpoints import VARIABLE, read_rules, rules_for, unfired
from swarmrt.runtime.trainer.folders import claimed, new_run_dir


def local(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    replicas: str | None = REPLICAS,
    process: list[str] = typer.Option(
        [],
        metavar="N,N,…",
        help="A process with seats at these stages, instead of --replicas; given once for each.",
    ),
    spares: str | None = SPARES,
    auto: int = typer.Option(
        0,
        "--auto",
        min=0,
        metavar="N",
        help="Processes more, that serve where they help most; alone, without --replicas.",
    ),
    steps: int | None = typer.Option(None, min=1, help="Overrides run.steps."),
    overrides: list[str] = SET,
    run_dir: Path | None = typer.Option(None, metavar="DIR", help="Default: runs/NAME-TIME."),
    resume: Path | None = RESUME,
    threads: int | None = typer.Option(None, min=1, help="CPU threads of each peer."),
    link_rate: str | None = LINK_RATE,
    trial: bool = TRIAL,
    allow_change: list[str] = ALLOW_CHANGE,
    as_json: bool = JSON,
) -> None:
    """Directory, peers and trainer, each a real process on this machine, for trying things out."""
    from swarmrt.cli.process.running import show_logs
    from swarmrt.data import open_data
    from swarmrt.lab.swarm.launch import LaunchedSwarm
    from swarmrt.lab.swarm.options import Options, replicas_of

    show_logs()
    parse_link_rate(link_rate)
    rules = read_rules(os.environ.get(VARIABLE, ""))
    if steps is not None:
        overrides = [*overrides, f"run.steps={steps}"]
    config, known, checkpoint = load_run(load_config(path, overrides), resume, allow_change)
    processes = parse_processes(process, replicas, config)
    numbers = parse_replicas(replicas, config) or (int(not auto),) * config.num_stages
    numbers = replicas_of(processes, config.num_stages) if processes else numbers
    config = identified(config, open_data(config), known, checkpoint)
    run_dir = run_dir or resume or new_run_dir(config)
    with claimed(run_dir):  # as the trainer will, who does the rest
        check_folder(run_dir, resume, config, known, allow_change)
    arguments = ["--resume", str(resume)] if resume is not None else []
    arguments += ["--json"] * as_json + ["--no-trial"] * (not trial)
    arguments += [part for name in allow_change for part in ("--allow-change", name)]
    options = Options(
        processes=processes,
        threads=threads,
        link_rate=link_rate,
        spares=parse_spares(spares, config),
        movers=auto,
        failpoints=rules,
        trainer_arguments=arguments,
        is_trainer_shown=True,
    )
    began_at = time.time()
    with LaunchedSwarm(config, numbers, run_dir, options) as swarm:
        code = watch(swarm)
    for text in unfired(rules_for("peer", rules), run_dir.glob("peers/*"), began_at):
        say(text, as_json)  # the trainer tells its own
    if code:
        raise typer.Exit(code)
