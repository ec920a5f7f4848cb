"""The options of what a process's links may send, and bring."""

from __future__ import annotations

import typer

from swarmrt.runtime.limits.rates import parse_rate

LINK_RATE = typer.Option(
    None,
    "--up",
    "--link-rate",
    "--max-mbps",
    metavar="RATE",
    help="What all links of a process may send a second together, like 15mbit; a bit less than "
    "your uplink carries keeps it free for what is urgent.",
)
DOWN_RATE = typer.Option(
    None,
    "--down",
    metavar="RATE",
    help="What all links of this process may bring a second together, like 100mbit.",
)


def parse_link_rate(text: str | None, option: str = "--up") -> float | None:
    """Return bytes a second; None where nothing was asked for. A number alone is of megabits.
    Raises UsageError."""
    if text is None:
        return None
    is_number = text.replace(".", "", 1).isdecimal()
    return parse_rate(option, f"{text}mbit" if is_number else text)
