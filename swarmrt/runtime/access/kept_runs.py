"""The runs that a machine has joined, kept so that joining again takes no join line.

$XDG_DATA_HOME/swarmrt/runs/NAME@FINGERPRINT/
    join          the join line, with the addresses that answered last
    identity-N    the identity of the N-th process here that serves the run at a time
    membership-N  what that identity was given
    epoch         the highest epoch of the run that was seen
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swarmrt.errors import AccessError, UsageError
from swarmrt.trust.joining_line import JoinLine, parse_join_line
from swarmrt.trust.statements import Age

MAX_IDENTITIES = 64  # processes of one user on one machine that serve the same run at a time


@dataclass(frozen=True)
class KeptRun:
    """The folder of one run, and the place in it that this process has to itself."""

    folder: Path
    number: int

    @property
    def identity(self) -> Path:
        """The key file of this process."""
        return self.folder / f"identity-{self.number}"

    def membership(self) -> str:
        """Return the membership that this identity was given last; empty for none."""
        return _read(self.folder / f"membership-{self.number}")

    def keep_membership(self, token: str) -> None:
        """Write down the membership that this identity was given. Raises UsageError."""
        _write(self.folder / f"membership-{self.number}", token)

    def keep_line(self, line: JoinLine) -> None:
        """Write down the join line. Raises UsageError."""
        _write(self.folder / "join", str(line))

    def newest(self) -> Age:
        """Return the age of the newest record of the run that was seen here."""
        match _read(self.folder / "newest").split():
            case [born, epoch] if born.isdigit() and epoch.isdigit():
                return (int(born), int(epoch))
        return (0, -1)

    def keep_newest(self, age: Age) -> None:
        """Write down the age of a record, if it is the newest yet. Raises UsageError."""
        if age > self.newest():
            _write(self.folder / "newest", f"{age[0]} {age[1]}")


def runs_folder() -> Path:
    """Return where runs are kept: under the user's data folder."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "swarmrt" / "runs"


def kept_line(name: str | None) -> JoinLine:
    """Return the join line of the run that was joined here before.

    `name` is the run's name or id; it may be left out where there is only one. Raises AccessError.
    """
    folder = runs_folder()
    kept = sorted(path.parent for path in folder.glob("*/join"))
    wanted = [p for p in kept if name is None or name in (p.name, p.name.partition("@")[0])]
    if len(wanted) == 1:
        return parse_join_line(_read(wanted[0] / "join"))
    if not wanted:
        known = f"; kept here: {', '.join(p.name for p in kept)}" if kept else ""
        what = "any run" if name is None else f"run {name!r}"
        raise AccessError(
            f"this machine has not joined {what} yet: pass the join line that `swarmrt train` or "
            f"`swarmrt invite` prints{known}"
        )
    raise AccessError(
        f"this machine has joined several runs: {', '.join(p.name for p in wanted)}; "
        "say which with --run"
    )


@contextlib.contextmanager
def keeping(line: JoinLine) -> Iterator[KeptRun]:
    """Have a place in the run's folder to oneself, and keep the line there. Raises UsageError."""
    folder = runs_folder() / str(line.run)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(MAX_IDENTITIES):
            with (folder / f"lock-{number}").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                kept = KeptRun(folder, number)
                kept.keep_line(line)
                yield kept
                return
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None
    raise UsageError(f"{folder}: {MAX_IDENTITIES} processes serve the run from here already")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _write(path: Path, text: str) -> None:
    """Replace a file that only its user may read. Raises UsageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
