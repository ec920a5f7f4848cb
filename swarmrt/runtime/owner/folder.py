"""The folder of the sockets at which a user's peers on this machine are asked to pause or to stop.

    $XDG_RUNTIME_DIR/swarmrt/PID.sock        or /tmp/swarmrt-UID/PID.sock where there is none

Nobody but the user may enter it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import tempfile
from pathlib import Path

from swarmrt.errors import UsageError

MOST_PATH_BYTES = 107  # of a socket's path, in Linux
CONNECT_S = 5.0  # for a process that stands still to take a connection
_CREDENTIALS = struct.Struct("3i")  # process, user and group at the other end


def sockets_folder() -> Path:
    """Return the folder, made if need be. Raises UsageError when others may enter it."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    own = Path(tempfile.gettempdir()) / f"swarmrt-{os.getuid()}"
    folder = Path(base) / "swarmrt" if base.startswith("/") else own
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise UsageError(
            f"{folder}: is not a folder that only you may enter; remove it, or set XDG_RUNTIME_DIR "
            "to a folder of yours"
        )
    return folder


def remove_if_empty(folder: Path) -> None:
    """Remove the folder unless another process has its socket there, or it is gone already."""
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def socket_of(pid: int, folder: Path) -> Path:
    """Return the path of a process's socket. Raises UsageError when it is too long for one."""
    path = folder / f"{pid}.sock"
    if len(os.fsencode(path)) + len(".new") > MOST_PATH_BYTES:
        raise UsageError(f"{path}: is too long for a socket; set XDG_RUNTIME_DIR to a shorter one")
    return path


def listening(path: Path) -> socket.socket:
    """Return a socket that listens there. Who finds the path can connect to it. Raises OSError."""
    new, found = path.with_suffix(".sock.new"), socket.socket(socket.AF_UNIX)
    try:
        new.unlink(missing_ok=True)
        found.bind(str(new))
        new.chmod(0o600)
        found.listen()
        found.setblocking(False)
        new.rename(path)
    except OSError:
        found.close()
        raise
    return found


def connected(path: Path) -> socket.socket | None:
    """Return a connection to the process that listens there; None where it has ended without
    removing its socket, which is removed now. Raises OSError, UsageError where it is another
    user's."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(CONNECT_S)
    try:
        connection.connect(str(path))
        check_is_ours(connection, "the process at the other end")
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        path.unlink(missing_ok=True)
        return None
    except (OSError, UsageError):
        connection.close()
        raise
    return connection


def check_is_ours(connection: socket.socket, who: str) -> None:
    """Raise UsageError unless the other end is a process of this user's; where the system does not
    say, the folder's own protection has to do."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return
    about = connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(about)
    if user != os.getuid():
        raise UsageError(f"{who} is of user {user}, and this one of user {os.getuid()}")


def sweep(folder: Path) -> list[Path]:
    """Return the sockets at which somebody listens, in the order of their processes' numbers; those
    of processes that were killed are removed."""
    found = [path for path in folder.glob("*.sock") if path.stem.isdecimal()]
    return [path for path in sorted(found, key=lambda path: int(path.stem)) if _is_used(path)]


def _is_used(path: Path) -> bool:
    try:
        connection = connected(path)
    except (OSError, UsageError):
        return True  # whoever asks there is told what is wrong
    if connection is not None:
        connection.close()
    return connection is not None
