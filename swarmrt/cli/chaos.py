"""`swarmrt chaos`: a run on this machine, disturbed by a schedule of faults, and audited."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from swarmrt.cli.configs import SET
from swarmrt.cli.train import JSON, REPLICAS, parse_replicas, say
from swarmrt.config import RunConfig, load_config
from swarmrt.errors import SwarmError, UsageError

if TYPE_CHECKING:
    from swarmrt.lab.chaos import Chaos
    from swarmrt.lab.swarm import LocalSwarm

CHECKPOINT_STEPS = 5  # at most: a trainer can be killed only once there is a checkpoint


def chaos(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    seed: int = typer.Option(..., "--seed", min=0, help="Draws the schedule."),
    steps: int = typer.Option(..., "--steps", min=1, help="Steps to commit; sets run.steps."),
    every_s: float = typer.Option(
        3.0, "--every", metavar="SECONDS", min=0.01, help="Time between two faults, on average."
    ),
    kinds: str = typer.Option(
        "kill,stop,term,cut,slow,join,trainer,bootstrap", "--kinds", help="Kinds of faults."
    ),
    replicas: str | None = REPLICAS,
    overrides: list[str] = SET,
    run_dir: Path | None = typer.Option(None, metavar="DIR", help="Default: runs/NAME-TIME."),
    as_json: bool = JSON,
) -> None:
    """Train on this machine while processes are killed, stopped and cut off; then audit.

    Exits with 1 when the run failed, or when the audit finds a gradient that was lost or counted
    twice, or replicas that differ.
    """
    from swarmrt.lab.chaos import Chaos
    from swarmrt.lab.schedule import checked, draw
    from swarmrt.lab.swarm import LocalSwarm

    asked = checked(kind.strip() for kind in kinds.split(","))
    config = load_config(path, overrides)
    numbers = parse_replicas(replicas, config) or (1,) * config.num_stages
    swarm = LocalSwarm(
        path, numbers, run_dir=run_dir, overrides=_settings(overrides, config, steps)
    )
    schedule = draw(seed, asked, numbers, every_s, num=max(steps, len(asked)))
    say(f"run folder {swarm.run_dir}", as_json)
    say(f"schedule of seed {seed}, since the first commit:", as_json)
    for fault in schedule:
        say(str(fault), as_json)
    say("what happens:", as_json)
    disturbance = Chaos(swarm, schedule, lambda text: say(text, as_json))
    result = _run_and_audit(swarm, disturbance, seed)
    _report(result, as_json)
    if not _is_good(result):
        raise typer.Exit(1)


def _settings(overrides: Sequence[str], config: RunConfig, steps: int) -> dict[str, object]:
    settings: dict[str, object] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        settings[key] = value
    every = config.checkpoint.every_steps or CHECKPOINT_STEPS
    settings["checkpoint.every_steps"] = min(every, CHECKPOINT_STEPS)
    settings["run.steps"] = steps
    return settings


def _run_and_audit(swarm: LocalSwarm, disturbance: Chaos, seed: int) -> dict[str, Any]:
    """What `--json` prints. `failed` says why the run did, and is null otherwise."""
    failed = None
    try:
        with swarm:
            disturbance.run()
    except UsageError:
        raise
    except SwarmError as error:
        failed = str(error)
    return {
        "seed": seed,
        "steps": swarm.version,
        "faults": dict(sorted(disturbance.done.items())),
        "skipped": disturbance.skipped.total(),
        "died": disturbance.died(),
        "failed": failed,
        "audit": _plain(swarm.audit()),
        "run_dir": str(swarm.run_dir),
    }


def _plain(audit: Any) -> dict[str, Any]:
    """As JSON has it."""
    if hasattr(audit, "to_json"):
        plain: dict[str, Any] = json.loads(audit.to_json())
        return plain
    return dataclasses.asdict(audit)


def _is_good(result: dict[str, Any]) -> bool:
    audit = result["audit"]
    return not (result["failed"] or audit["violations"] or audit["digest_mismatches"])


def _report(result: dict[str, Any], as_json: bool) -> None:
    counts = ", ".join(f"{kind} {number}" for kind, number in result["faults"].items())
    say(f"{sum(result['faults'].values())} faults ({counts or 'none'})", as_json)
    say(f"{result['skipped']} skipped, because they were not possible then", as_json)
    say(f"{result['steps']} steps committed", as_json)
    if result["died"]:
        say(f"ended with an error by themselves: {', '.join(result['died'])}", as_json)
    if result["failed"]:
        print(f"swarmrt: the run failed: {result['failed']}", file=sys.stderr, flush=True)
    audit = result["audit"]
    for key in ("violations", "digest_mismatches"):
        say(f"audit: {_count(audit[key])} {key.replace('_', ' ')}", as_json)
    say(f"everything is in {result['run_dir']}", as_json)
    if as_json:
        print(json.dumps(result, default=str), flush=True)


def _count(findings: Any) -> int:
    return findings if isinstance(findings, int) else len(findings)
