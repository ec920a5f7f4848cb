"""The command `swarmrt audit`: what a run's logs say about its promises."""

from __future__ import annotations

from pathlib import Path

import typer

from swarmrt.foreign import for_terminal


def audit(
    run_dir: Path = typer.Argument(..., metavar="RUN_DIR"),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Check every (microbatch, stage) of every committed step, and all replica digests."""
    from swarmrt.observe.audit import audit as read

    result = read(run_dir)
    if as_json:
        print(result.to_json())
    else:
        print(for_terminal("\n".join(result.lines())))
    if not result.passed:
        raise typer.Exit(1)
