"""The bounds of what is skipped: what a process of another age says, and nobody here knows.

Nothing of it is kept. It is looked at only to see that it costs no more than it has to.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from swarmrt.errors import WireError

MOST_FIELDS = 64  # of a header or a record, with those that are known
SKIPPED_BYTES = 64 << 10  # of all that is skipped in a header
SKIPPED_DEPTH = 8  # of arrays and maps in each other

NONSENSE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for what it cannot read."""


def skip(name: str, fields: Sequence[msgspec.Raw]) -> None:
    """Look at the fields of a header that nobody here knows. Raises WireError when they are larger,
    or go deeper, than any has to."""
    size = sum(memoryview(field).nbytes for field in fields)
    if size > SKIPPED_BYTES:
        raise WireError(f"{name}: {size} bytes of unknown fields; at most {SKIPPED_BYTES}")
    try:
        is_shallow = all(is_within(SKIPPED_DEPTH, msgspec.msgpack.decode(f)) for f in fields)
    except NONSENSE as error:
        raise WireError(f"{name}: an unknown field is nonsense: {error}") from None
    if not is_shallow:
        raise WireError(f"{name}: an unknown field goes deeper than {SKIPPED_DEPTH}")


def is_within(depth: int, value: object) -> bool:
    """Return whether arrays and maps are nested so deep at the most."""
    if not isinstance(value, list | tuple | dict):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(is_within(depth - 1, part) for part in inner)
