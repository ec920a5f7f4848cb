"""`swarmrt serve`: one peer."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import typer

from swarmrt.cli.bootstrap import IDENTITY, LINK_DELAY, WITH_PARENT
from swarmrt.cli.reach import ANNOUNCE, LISTEN, PORT, UPNP, place_of
from swarmrt.errors import UsageError


def serve(
    stage: int = typer.Option(..., "--stage", metavar="N", help="The stage to serve, from 0."),
    run_name: str = typer.Option(..., "--run", metavar="NAME", help="The run's name."),
    join: list[str] = typer.Option(
        ..., "--join", metavar="ADDR", help="Address of a process of the swarm; may be repeated."
    ),
    device: str = typer.Option("cpu", help='A torch device: "cpu", "cuda", "cuda:1", "mps".'),
    identity: Path | None = IDENTITY,
    listen: list[str] = LISTEN,
    port: str | None = PORT,
    announce: list[str] = ANNOUNCE,
    upnp: bool = UPNP,
    threads: int | None = typer.Option(None, min=1, help="CPU threads for torch."),
    wait: bool = typer.Option(False, "--wait", help="Wait for the directory, and for the run."),
    log_dir: Path | None = typer.Option(
        None, metavar="DIR", help="Where to write events.jsonl; nowhere by default."
    ),
    emulate: str | None = typer.Option(
        None,
        metavar="FORWARD_S,BACKWARD_S",
        help="Experiments: a microbatch takes this long, whatever the device.",
    ),
    link_delay_s: float = LINK_DELAY,
    with_parent: bool = WITH_PARENT,
) -> None:
    """Serve one stage of a run until it is over, or until Ctrl-C."""
    import torch

    from swarmrt.cli.running import run
    from swarmrt.lab.emulation import EmulatedStage, parse_speed
    from swarmrt.model.stage import Stage
    from swarmrt.runtime.failpoints import VARIABLE, parse_failpoints
    from swarmrt.runtime.faults import LinkFaults
    from swarmrt.runtime.peer import ServeOptions
    from swarmrt.runtime.serving import serve as serve_peer

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {device}: not usable here: {reason}") from None
    options = ServeOptions(
        run=run_name,
        stage=stage,
        join=tuple(join),
        place=place_of(join, listen, port, announce, upnp),
        identity=identity,
        device=device,
        threads=threads,
        wait=wait,
        log_dir=log_dir,
        failpoints=parse_failpoints(os.environ.get(VARIABLE, "")),
        faults=LinkFaults(link_delay_s) if with_parent or link_delay_s else None,
        new_stage=Stage if emulate is None else partial(EmulatedStage, parse_speed(emulate)),
    )
    run(
        lambda switch: serve_peer(options, switch, lambda text: print(text, flush=True)),
        with_parent=with_parent,
        faults=options.faults,
    )
