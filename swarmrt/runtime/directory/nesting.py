"""A bound on how deep values of the directory nest.

hivemind reads a tuple in a tuple, or a dictionary in one, by a call in a call, before anything is
checked: a record of a few KiB would take the whole stack, and end every process that reads it.
"""

from __future__ import annotations

import threading
from typing import Any

from hivemind.utils import MSGPackSerializer

MOST_NESTED = 8  # values of hivemind's own types in each other

_decode = MSGPackSerializer._decode_ext_types
_here = threading.local()


def _decode_bounded(type_code: int, data: bytes) -> Any:
    """Read a value of hivemind's own types. Raises ValueError when it is in too many others."""
    depth = getattr(_here, "depth", 0)
    if depth >= MOST_NESTED:
        raise ValueError(f"a value of the directory that is nested more than {MOST_NESTED} deep")
    _here.depth = depth + 1
    try:
        return _decode(type_code, data)
    finally:
        _here.depth = depth


def bound_nesting() -> None:
    """Have hivemind refuse what is nested too deep, from now on."""
    MSGPackSerializer._decode_ext_types = staticmethod(_decode_bounded)
