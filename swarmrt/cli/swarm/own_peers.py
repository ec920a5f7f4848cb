"""The commands `swarmrt pause`, `resume` and `stop`, for the peers of this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from swarmrt.cli.options.saying import JSON, say

if TYPE_CHECKING:
    from swarmrt.runtime.owner.words import Act, Told

WHICH = typer.Argument(
    None,
    metavar="[WHICH]...",
    help="Numbers of processes, or names of the runs that they serve; all of yours by default.",
)


def pause(which: list[str] | None = WHICH, as_json: bool = JSON) -> None:
    """Have your device back: what is computed ends, others do the rest, the state is kept."""
    _ask("pause", which, as_json)


def resume(which: list[str] | None = WHICH, as_json: bool = JSON) -> None:
    """Lend it again."""
    _ask("resume", which, as_json)


def stop(which: list[str] | None = WHICH, as_json: bool = JSON) -> None:
    """Have them hand over what they have, and end."""
    _ask("stop", which, as_json)


def _ask(act: Act, which: list[str] | None, as_json: bool) -> None:
    from swarmrt.runtime.owner.asking import ask

    told = ask(act, which or ())
    for one in told:
        for text in _lines(act, one):
            say(text, as_json)
    if as_json:
        found = [{name: getattr(one, name) for name in one.__struct_fields__} for one in told]
        print(json.dumps({"peers": found}))
    if any(one.error for one in told):
        raise typer.Exit(1)


def _lines(act: Act, told: Told) -> list[str]:
    """Return what has become of a wish, for people."""
    stages = ", ".join(map(str, told.stages))
    who = f"peer {told.pid}" + (f" at stage {stages} of run {told.run}" if told.run else "")
    if told.error:
        return [f"{who}: {told.error}"]
    match act:
        case "pause":
            freed = f", {told.freed_bytes / 1e9:.2f} GB of {told.device} are given back"
            lines = [f"{who} is paused after {told.seconds:.2f} s{freed * (told.freed_bytes > 0)}"]
            return lines + [
                f"  no other replica of stage {stage} took part in the last step: unless one has "
                "come since, the run waits for you"
                for stage in told.alone
            ]
        case "resume":
            return [f"{who} goes on"]
        case "stop":
            return [f"{who} hands over what it has, and ends"]
    return [f"{who} is {told.state}"]
