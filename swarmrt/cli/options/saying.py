"""Results for people, or for programs: the option `--json`, and where the words go."""

from __future__ import annotations

import sys

import typer

from swarmrt.errors import is_disk_full
from swarmrt.foreign import for_terminal

JSON = typer.Option(False, "--json", help="Print the result as one JSON object, last.")


def say(text: str, as_json: bool) -> None:
    """Print for people. Under --json, standard output is for the object alone.

    On a full disk it waits in the stream's buffer, or is lost: that ends no run.
    """
    try:
        print(for_terminal(text), file=sys.stderr if as_json else sys.stdout, flush=True)
    except OSError as error:
        if not is_disk_full(error):
            raise
