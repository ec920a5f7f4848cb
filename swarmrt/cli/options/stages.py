"""The option `--stage` of a process that serves: what it serves, or may serve."""

from __future__ import annotations

from collections.abc import Sequence

from swarmrt.errors import UsageError
from swarmrt.runtime.peer.serve_options import Moves

AUTO = "auto"


def parse_stages(
    texts: Sequence[str], *, pinned: bool, spare: bool
) -> tuple[tuple[int, ...], Moves | None]:
    """Return the stages that are served, or among which ones it moves. Raises UsageError."""
    among = [text for text in texts if text == AUTO or "," in text]
    if among and len(texts) > 1:
        raise UsageError(f"--stage {among[0]}: give it once, and no other --stage beside it")
    if not among and pinned:
        raise UsageError("--pin is for --stage auto: a stage that is named is never left")
    if among and spare:
        raise UsageError("--spare: with --stage auto the trainer says who stands by for what")
    stages = tuple(dict.fromkeys(_numbers(text) for text in texts if not among))
    if not among:
        return tuple(number for numbers in stages for number in numbers), None
    named = () if among[0] == AUTO else tuple(sorted(set(_numbers(among[0]))))
    return (), Moves(named, is_pinned=pinned)


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--stage {text}: write the number of a stage, 1,2 or auto")
    return tuple(int(part) for part in parts)
