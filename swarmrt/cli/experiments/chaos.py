"""The command `swarmrt chaos`: a run on this machine, disturbed by a schedule of faults, and
audited."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from swarmrt.cli.options.rates import LINK_RATE, parse_link_rate
from swarmrt.cli.options.runs import REPLICAS, SET, SPARES, parse_replicas, parse_spares
from swarmrt.cli.options.saying import JSON, say
from swarmrt.config_toml import load_config
from swarmrt.errors import RunError, UsageError

if TYPE_CHECKING:
    from swarmrt.lab.chaos.chaos import Chaos
    from swarmrt.lab.swarm.swarm import LocalSwarm


def chaos(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    seed: int = typer.Option(..., "--seed", min=0, help="Draws the schedule."),
    steps: int = typer.Option(..., "--steps", min=1, help="Steps to commit; sets run.steps."),
    every_s: float = typer.Option(
        3.0, "--every", metavar="SECONDS", min=0.01, help="Time between two faults, on average."
    ),
    kinds: str = typer.Option(
        "kill,stop,term,cut,slow,radio,hang,pause-owner,move,join,slow-newcomer,directory,daemon,disk,trainer,bootstrap",
        "--kinds",
        help="Kinds of faults; a move is of one of the --auto.",
    ),
    replicas: str | None = REPLICAS,
    spares: str | None = SPARES,
    auto: int = typer.Option(
        0,
        "--auto",
        min=0,
        metavar="N",
        help="Processes more, that serve where they help most; alone, without --replicas.",
    ),
    link_rate: str | None = LINK_RATE,
    overrides: list[str] = SET,
    run_dir: Path | None = typer.Option(None, metavar="DIR", help="Default: runs/NAME-TIME."),
    as_json: bool = JSON,
) -> None:
    """Train on this machine while processes are killed, stopped and cut off; then audit.

    Exits with 1 when the run failed, when it was over before the first fault, when a fault has left
    no trace, or when the audit finds a gradient that was lost or counted twice, or replicas that
    differ.
    """
    from swarmrt.lab.chaos.chaos import Chaos
    from swarmrt.lab.chaos.schedule import checked, draw
    from swarmrt.lab.chaos.traces import moves_asked_for
    from swarmrt.lab.swarm.swarm import LocalSwarm

    parse_link_rate(link_rate)
    asked = checked(kind.strip() for kind in kinds.split(","))
    config = load_config(path, overrides)
    numbers = parse_replicas(replicas, config) or (int(not auto),) * config.num_stages
    there = [number + math.ceil(auto / config.num_stages) for number in numbers]
    if not auto:
        asked = [kind for kind in asked if kind != "move"]
    if not asked:
        raise UsageError("nobody moves without processes that may: say how many with --auto")
    swarm = LocalSwarm(
        path,
        numbers,
        run_dir=run_dir,
        overrides=_settings(overrides, steps),
        link_rate=link_rate,
        spares=parse_spares(spares, config),
        movers=auto,
    )
    schedule = draw(seed, asked, there, every_s, num=max(steps, len(asked)))
    say(f"run folder {swarm.run_dir}", as_json)
    say(f"schedule of seed {seed}, since the first commit:", as_json)
    for fault in schedule:
        say(str(fault), as_json)
    say("what happens:", as_json)
    disturbance = Chaos(swarm, schedule, lambda text: say(text, as_json))
    failed = _run(swarm, disturbance)
    audit = swarm.audit()
    result = {
        "seed": seed,
        "steps": swarm.version,
        "faults": dict(sorted(disturbance.done.items())),
        "skipped": disturbance.skipped.total(),
        "died": disturbance.died(),
        "in_vain": disturbance.in_vain,
        "moves": moves_asked_for(swarm.trainer)._asdict(),
        "failed": failed,
        "run_dir": str(swarm.run_dir),
        "audit": json.loads(audit.to_json()),
    }
    for line in [*_lines(result), *audit.lines(), f"everything is in {swarm.run_dir}"]:
        say(line, as_json)
    if as_json:
        print(json.dumps(result), flush=True)
    if failed or not audit.passed or not disturbance.done or disturbance.in_vain:
        raise typer.Exit(1)


def _settings(overrides: Sequence[str], steps: int) -> dict[str, object]:
    parts = (override.partition("=") for override in overrides)
    return {**{key: value for key, _, value in parts}, "run.steps": steps}


def _run(swarm: LocalSwarm, disturbance: Chaos) -> str | None:
    """Return why the run failed; None when it came to its end."""
    try:
        with swarm:
            disturbance.run()
    except RunError as error:
        return str(error)
    return None


def _lines(result: dict[str, Any]) -> list[str]:
    """Return lines for people."""
    counts = ", ".join(f"{kind} {number}" for kind, number in result["faults"].items())
    lines = [
        f"{result['steps']} steps committed, {sum(result['faults'].values())} faults "
        f"({counts or 'none'}), {result['skipped']} skipped because they were not possible then"
    ]
    if not result["faults"] and not result["failed"]:
        lines.append("NOTHING WAS DISTURBED: take more --steps, or a shorter --every")
    if result["faults"].get("move"):
        moves = result["moves"]
        lines.append(f"of the moves {moves['begun']} began, and {moves['served']} came to serve")
    lines += [f"MADE IN VAIN: {what}" for what in result["in_vain"]]
    if result["died"]:
        lines.append(f"ended with an error by themselves: {', '.join(result['died'])}")
    if result["failed"]:
        lines.append(f"THE RUN FAILED: {result['failed']}")
    return lines
