"""Files and folders that are on the disk when a call returns."""

from __future__ import annotations

import os
from pathlib import Path


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Write a file anew, and have it on the disk. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Have a file or a folder on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
