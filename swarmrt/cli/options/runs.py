"""Options about the run: its settings, its replicas, and whether it is one that goes on."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from swarmrt.config import RunConfig
from swarmrt.errors import UsageError

SET = typer.Option(
    [], "--set", metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."
)
ALLOW_CHANGE = typer.Option(
    [],
    "--allow-change",
    metavar="SECTION.KEY",
    help="Go on although this differs from what the run was begun with; may be repeated.",
)
TRIAL = typer.Option(
    True, "--trial/--no-trial", help="Try a builder's model, whole and cut, on a microbatch first."
)
RESUME = typer.Option(
    None, "--resume", metavar="RUN_DIR", help="Continue from this run's newest checkpoint."
)
REPLICAS = typer.Option(
    None, "--replicas", metavar="2,2,2", help="Replicas of each stage to wait for."
)
SPARES = typer.Option(
    None,
    "--spares",
    metavar="0,1,0",
    help="Spares of each stage, which take the place of replicas that are lost.",
)


def parse_replicas(text: str | None, config: RunConfig) -> tuple[int, ...] | None:
    """Read `2,3,2`, or one number for every stage."""
    if text is None:
        return None
    numbers = _numbers("--replicas", text, config)
    if len(numbers) != config.num_stages or min(numbers) < 1:
        raise UsageError(
            f"--replicas {text}: the run has {config.num_stages} stages, each needs at least one"
        )
    return numbers


def parse_processes(
    texts: Sequence[str], replicas: str | None, config: RunConfig
) -> list[tuple[int, ...]]:
    """Read the stages of each process's seats, like `0,2`."""
    if texts and replicas is not None:
        raise UsageError("--process says how many replicas there are; leave --replicas out")
    processes = []
    for text in texts:
        try:
            stages = tuple(int(part) for part in text.split(","))
        except ValueError:
            raise UsageError(f"--process {text}: write its stages, like 0,2") from None
        if len(set(stages)) < len(stages):
            raise UsageError(f"--process {text}: a process has one seat at a stage")
        if not all(0 <= stage < config.num_stages for stage in stages):
            last = config.num_stages - 1
            raise UsageError(f"--process {text}: stages are 0 to {last}")
        processes.append(stages)
    return processes


def parse_spares(text: str | None, config: RunConfig) -> tuple[int, ...]:
    """Read `0,1,0`, or one number for every stage; none without a text."""
    numbers = _numbers("--spares", text or "0", config)
    if len(numbers) != config.num_stages or min(numbers) < 0:
        raise UsageError(f"--spares {text}: write one number for each of the run's stages")
    return numbers


def _numbers(option: str, text: str, config: RunConfig) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: write one number a stage, like 2,2,2") from None
    return numbers * config.num_stages if len(numbers) == 1 else numbers
