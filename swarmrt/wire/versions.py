"""The versions of the protocol that a process speaks, and the one that two processes use.

What another version adds at the end of a message, and kinds of messages that it adds, need none of
this: they are skipped by who does not know them. A version is raised when a message changes so that
the other end would misread it.
"""

from __future__ import annotations

from typing import NamedTuple

from swarmrt.errors import NoCommonVersion, WireError


class Versions(NamedTuple):
    """A range of versions."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"

    def common(self, theirs: Versions) -> int:
        """Return the highest version that the other end speaks too. Raises NoCommonVersion when
        there is none, WireError when theirs is no range."""
        if not 0 < theirs.least <= theirs.most:
            raise WireError(f"versions from {theirs.least} to {theirs.most} are no range")
        version = min(self.most, theirs.most)
        if version < max(self.least, theirs.least):
            older = "this process" if self.most < theirs.most else "the other end"
            raise NoCommonVersion(
                f"this process speaks version {self} of the protocol, the other end {theirs}: "
                f"update swarmrt of {older}"
            )
        return version


SPEAKS = Versions(4, 4)
"""The versions that this process speaks."""
