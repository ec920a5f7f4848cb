"""Rates of links on the command line: 800kbit, 50mbit, 1gbit."""

from __future__ import annotations

import re

import typer

from swarmrt.errors import UsageError

BITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
LEAST_BITS, MOST_BITS = 1e5, 1e12  # a second

LINK_RATE = typer.Option(
    None,
    "--link-rate",
    "--max-mbps",
    metavar="RATE",
    help="What all links of a process may send a second together, like 15mbit; a bit less than "
    "your uplink carries keeps it free for what is urgent.",
)


def parse_rate(text: str | None) -> float | None:
    """Return bytes a second; None where nothing was asked for. A number alone is of megabits.
    Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,20})?)([kmg]bit)?", text.lower())
    bits = float(match[1]) * BITS[match[2] or "mbit"] if match else 0.0
    if not LEAST_BITS <= bits <= MOST_BITS:
        raise UsageError(
            f"--link-rate {text}: write bits a second like 800kbit, 50mbit or 1gbit, at least "
            "100kbit"
        )
    return bits / 8
