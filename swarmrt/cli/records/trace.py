"""The command `swarmrt trace`: one timeline of all processes of a run."""

from __future__ import annotations

from pathlib import Path

import typer

from swarmrt.foreign import for_terminal


def trace(
    run_dir: Path = typer.Argument(..., metavar="RUN_DIR"),
    out: Path = typer.Option(Path("trace.json"), "--out", help="The file to write."),
) -> None:
    """Write a timeline of what every process did, for https://ui.perfetto.dev."""
    from swarmrt.observe.trace.trace import trace as write

    written = write(run_dir, out)
    print(f"wrote {out}")
    print(for_terminal("\n".join(written.lines())))
