"""A disk that is full on purpose, and for a while only."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from swarmrt.errors import is_disk_full
from swarmrt.runtime.checkpoints.epochs import read_epoch, write_epoch
from swarmrt.runtime.faults.faults import LinkFaults
from swarmrt.runtime.faults.full_disk import ROOM_BYTES


def test_a_disk_is_full_for_a_while_for_all_but_what_is_there_already(tmp_path: Path) -> None:
    """Of two commands the one that ends later counts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "log"
    write_epoch(tmp_path, 1)

    async def story() -> None:
        faults = LinkFaults()
        faults.obey('{"disk": "full", "seconds": 0.4}')
        faults.obey('{"disk": "full", "seconds": 0.01}')
        with path.open("wb", buffering=0) as file:
            assert file.write(bytes(2 * ROOM_BYTES)) == ROOM_BYTES
            with pytest.raises(OSError) as failed:
                file.write(b"more")
        assert is_disk_full(failed.value)
        write_epoch(tmp_path, 2)  # in the block that it has
        while resource.getrlimit(resource.RLIMIT_FSIZE) != before:
            await asyncio.sleep(0.01)
        path.write_bytes(bytes(2 * ROOM_BYTES))

    asyncio.run(story())
    assert read_epoch(tmp_path) == 2
