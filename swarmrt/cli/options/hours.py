"""The option `--hours`: when a machine's owner lends it."""

from __future__ import annotations

import re

import typer

from swarmrt.errors import UsageError
from swarmrt.scheduler.lending import DAY_S, Hours

HOURS = typer.Option(
    None,
    "--hours",
    metavar="FROM-TO",
    help="The hours of the day, by this machine's clock, in which it serves, like 22-7; outside of "
    "them it is paused.",
)


def parse_hours(text: str) -> Hours:
    """Read `22-7` or `9:30-17`. Raises UsageError."""
    clock = r"([0-9]{1,2})(?::([0-5][0-9]))?"
    found = re.fullmatch(f"{clock}-{clock}", text)
    numbers = [int(part or 0) for part in found.groups()] if found else [0, 0, 0, 0]
    begin_s, end_s = (60 * (60 * h + m) for h, m in (numbers[:2], numbers[2:]))
    if begin_s == end_s or begin_s >= DAY_S or end_s > DAY_S:
        raise UsageError(f"--hours {text}: write hours like 22-7 or 9:30-17")
    return Hours(begin_s, end_s)
