"""The errors that swarmrt raises for its users.

SwarmError                    base; its text says what happened, to what, and what to do
├── UsageError                bad input from the user: the command exits with 2
│   ├── ConfigError           a run's configuration
│   ├── DataError             a text, token or tokenizer file
│   ├── ModelError            a model that cannot be built, cut or exported
│   ├── CheckpointError       a checkpoint that is missing, torn or of another run
│   ├── DirectoryError        a directory that does not answer or does not know the run
│   └── AccessError           a key, an invitation or a statement that does not allow it
├── WireError                 bytes from another process that break the protocol: the link is closed
│   └── NoCommonVersion       the two processes speak no version of it that both know
└── RunError                  a run that cannot go on: the command exits with 1
    ├── RunChanged            a run that is another one than the one that is served
    └── EndedByMicrobatch     a computation that has ended all that a process computes with
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

from swarmrt.ids import MicrobatchId


class SwarmError(Exception):
    """Base of all errors meant for people."""


class UsageError(SwarmError):
    """The user's input is wrong; nothing was changed."""


class ConfigError(UsageError):
    """A run's configuration is wrong."""


class DataError(UsageError):
    """A data or tokenizer file is missing or unusable."""


class ModelError(UsageError):
    """A model cannot be built, cut into stages or exported."""


class CheckpointError(UsageError):
    """A checkpoint is missing, torn, or belongs to another run."""


class DirectoryError(UsageError):
    """The directory does not answer, or does not know what was asked for."""


class AccessError(UsageError):
    """A key, an invitation or a statement is wrong, or does not allow what was asked for."""


class WireError(SwarmError):
    """A breach of the wire protocol by another process."""


class NoCommonVersion(WireError):
    """The other process speaks other versions of the protocol."""


class RunError(SwarmError):
    """The run cannot go on."""


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether it says that a file can take no more."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunChanged(RunError):
    """The trainer of this epoch says that the run is another one than the one that is served."""

    def __init__(self, text: str, epoch: int) -> None:
        super().__init__(text)
        self.epoch = epoch


class EndedByMicrobatch(RunError):
    """A computation has ended what a process computes with, and another one may fare no better."""

    def __init__(self, text: str, microbatch: MicrobatchId) -> None:
        super().__init__(text)
        self.microbatch = microbatch


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suffix for an error about an unknown name: the nearest known ones, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(names)}"
