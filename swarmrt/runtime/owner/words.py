"""The words between `swarmrt pause`, `resume` and `stop`, and a process that serves: a line of JSON
each way."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from swarmrt import __version__
from swarmrt.errors import UsageError

VERSION = 1  # of these words
MOST_BYTES = 64 << 10  # of a line

Act = Literal["status", "pause", "resume", "stop"]
State = Literal["serving", "paused", "leaving"]


class Asked(msgspec.Struct, frozen=True):
    """A wish of the owner."""

    act: str
    version: int = VERSION


class Told(msgspec.Struct, frozen=True):
    """The answer of a process: how it is after that."""

    pid: int
    run: str
    stages: tuple[int, ...]
    state: State
    device: str = "cpu"
    seconds: float = 0.0  # that the act has taken
    freed_bytes: int = 0  # of the device, by a pause
    alone: tuple[int, ...] = ()  # stages that no other replica served at the last step
    error: str = ""  # why it has not done what was asked, for people
    version: int = VERSION
    release: str = __version__


T = TypeVar("T", Asked, Told)


def line_of(word: Asked | Told) -> bytes:
    """Return a word as a line."""
    return msgspec.json.encode(word) + b"\n"


def word_of(line: bytes, kind: type[T]) -> T:
    """Read a line. Raises UsageError for what is none, and for other versions."""
    try:
        version = msgspec.json.decode(line, type=_Versioned)
        if version.version == VERSION:
            return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UsageError("what was said there is no word of swarmrt") from None
    release = f" ({version.release})" if version.release else ""
    raise UsageError(
        f"it speaks version {version.version} of these words{release}, and this is swarmrt "
        f"{__version__} with version {VERSION}"
    )


class _Versioned(msgspec.Struct, frozen=True):
    version: int
    release: str = ""
