"""The command `swarmrt serve`: one peer."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path

import typer

from swarmrt.cli.options.devices import DEVICE, check_device
from swarmrt.cli.options.hours import HOURS, parse_hours
from swarmrt.cli.options.models import ALLOW_MODEL, ALLOW_POLICY, MODEL_PATH
from swarmrt.cli.options.papers import JOIN_LINE, PAPERS_ON_STDIN, RUN, given_line, line_of_parent
from swarmrt.cli.options.processes import IDENTITY, JOIN, LINK_DELAY, WITH_PARENT
from swarmrt.cli.options.rates import DOWN_RATE, LINK_RATE, parse_link_rate
from swarmrt.cli.options.reach import ANNOUNCE, LISTEN, PORT, UPNP, place_of
from swarmrt.ids import NO_ISLAND


def serve(
    line_text: str | None = JOIN_LINE,
    stage: list[str] = typer.Option(
        ...,
        "--stage",
        metavar="N|N,N|auto",
        help="The stage to serve, from 0; may be given several times. Or 1,2: one of these, where "
        "it helps most; auto: one of all.",
    ),
    pin: bool = typer.Option(
        False, "--pin", help="With --stage auto: stay where it helps most as it comes."
    ),
    spare: bool = typer.Option(
        False,
        "--spare",
        help="Hold the stage's state and follow its updates, but take work only in the place of a "
        "replica that is lost or leaves.",
    ),
    island: int | None = typer.Option(
        None,
        "--island",
        metavar="N",
        min=0,
        help="The island to be in, from 0, where a run has several: that of the peers nearby.",
    ),
    run_name: str | None = RUN,
    join: list[str] = JOIN,
    device: str = DEVICE,
    identity: Path | None = IDENTITY,
    listen: list[str] = LISTEN,
    port: str | None = PORT,
    announce: list[str] = ANNOUNCE,
    upnp: bool = UPNP,
    link_rate: str | None = LINK_RATE,
    down_rate: str | None = DOWN_RATE,
    threads: int | None = typer.Option(None, min=1, help="CPU threads for torch."),
    allow_model: list[str] = ALLOW_MODEL,
    allow_policy: list[str] = ALLOW_POLICY,
    model_path: list[Path] = MODEL_PATH,
    memory: str | None = typer.Option(
        None,
        "--memory",
        "--max-memory",
        metavar="SIZE",
        help="What its stages may take of the device's memory, like 6GB; 80 % of what is free by "
        'default. "none" for no limit.',
    ),
    hours: str | None = HOURS,
    wait: bool = typer.Option(False, "--wait", help="Wait for the directory, and for the run."),
    state: Path | None = typer.Option(
        None,
        metavar="DIR",
        help="Leave the stage's state there when it stops, and take it up again from there.",
    ),
    trainer_gone: float | None = typer.Option(
        None,
        "--trainer-gone",
        min=0.0,
        metavar="SECONDS",
        help="How long to wait for a trainer that is gone; until it comes back, by default.",
    ),
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
    papers_on_stdin: bool = PAPERS_ON_STDIN,
) -> None:
    """Serve a stage of a run, or several, until it is over, or until Ctrl-C."""
    from contextlib import ExitStack

    from swarmrt.cli.options.saying import say
    from swarmrt.cli.options.stages import parse_stages
    from swarmrt.cli.process.running import run
    from swarmrt.lab.bench.emulation import EmulatedStage, parse_speed
    from swarmrt.model.builders import check_names, look_in
    from swarmrt.model.stage import Stage
    from swarmrt.runtime.access.kept_runs import keeping, kept_line
    from swarmrt.runtime.computing.free_memory import parse_size
    from swarmrt.runtime.faults.failpoints import VARIABLE, parse_failpoints
    from swarmrt.runtime.faults.faults import LinkFaults
    from swarmrt.runtime.peer.serve_options import ServeOptions
    from swarmrt.runtime.peer.serving import serve as serve_peer

    stages, moves = parse_stages(stage, pinned=pin, spare=spare)
    check_device(device)
    check_names(allow_model)
    look_in(model_path)
    with ExitStack() as stack:
        kept = None
        if papers_on_stdin:
            line = line_of_parent()
        else:
            line = given_line(line_text) or kept_line(run_name)
            kept = stack.enter_context(keeping(line))
        line = line.with_addresses(join)
        options = ServeOptions(
            line=line,
            stages=stages,
            moves=moves,
            is_spare=spare,
            island=NO_ISLAND if island is None else island,
            kept=kept,
            place=place_of(line.addresses, listen, port, announce, upnp),
            identity=identity or (kept.identity if kept is not None else None),
            device=device,
            threads=threads,
            allow_models=frozenset(allow_model),
            allow_policies=frozenset(allow_policy),
            max_memory_bytes=None if memory is None else parse_size(memory),
            link_bytes_per_s=parse_link_rate(link_rate),
            down_bytes_per_s=parse_link_rate(down_rate, "--down"),
            hours=None if hours is None else parse_hours(hours),
            wait=wait,
            state_dir=state,
            trainer_gone_s=math.inf if trainer_gone is None else trainer_gone,
            log_dir=log_dir,
            failpoints=parse_failpoints(os.environ.get(VARIABLE, ""), log_dir),
            faults=LinkFaults(link_delay_s) if with_parent or link_delay_s else None,
            new_stage=Stage if emulate is None else partial(EmulatedStage, parse_speed(emulate)),
        )
        if options.faults is not None:
            options.faults.on_failpoint(options.failpoints.arm)
        run(
            lambda switch: serve_peer(options, switch, lambda text: say(text, as_json=False)),
            with_parent=with_parent,
            faults=options.faults,
        )
        for text in options.failpoints.never_fired():
            say(text, as_json=False)
