"""Lengths of time on the command line: 90s, 15m, 12h, 7d."""

from __future__ import annotations

import re

from swarmrt.errors import UsageError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_S = 10 * 365 * 86400


def parse_duration(text: str) -> float:
    """Return seconds. Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(match[1]) * SECONDS[match[2]] if match else 0
    if not 0 < seconds <= MAX_S:
        raise UsageError(f"{text}: write a time like 90s, 15m, 12h or 7d")
    return float(seconds)
