"""Options of each command that is a process of a swarm."""

from __future__ import annotations

import typer

JOIN = typer.Option(
    [], "--join", metavar="ADDR", help="Address of a process of the swarm; may be repeated."
)
IDENTITY = typer.Option(
    None, "--identity", metavar="FILE", help="Key file; made if missing. Without one: a new key."
)
LINK_DELAY = typer.Option(
    0.0,
    "--link-delay",
    metavar="SECONDS",
    min=0.0,
    max=60.0,
    help="Experiments: every message to another process is on its way for this much longer.",
)
WITH_PARENT = typer.Option(False, "--with-parent", hidden=True)
