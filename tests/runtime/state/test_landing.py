"""Files that are fetched onto the disk."""

from __future__ import annotations

import asyncio
import errno
import os
from functools import partial
from pathlib import Path

import pytest
import torch

from swarmrt.ids import PeerId
from swarmrt.runtime.checkpoints.disk import Disk
from swarmrt.runtime.state.fetching import Wanted
from swarmrt.runtime.state.landing import InMemory, OnDisk, allocate, mapped
from swarmrt.runtime.state.offering import CHUNK_BYTES
from swarmrt.runtime.state.snapshot import Snapshot
from tests.runtime.state.test_state import LAYOUT, Donors, parameters, shelf, snapshot


async def get(donors: Donors, path: Path) -> Snapshot:
    wanted = Wanted(LAYOUT, 3, parameters())
    landing = partial(OnDisk, path, disk=Disk())
    return await donors.fetches.get(wanted, [PeerId("a"), PeerId("b")], landing)


def donors_of(*fills: float) -> Donors:
    return Donors({name: shelf(snapshot(fill)) for name, fill in zip("ab", fills, strict=True)})


def test_a_file_on_the_disk_is_what_it_would_be_in_memory(tmp_path: Path) -> None:
    got = asyncio.run(get(donors_of(1.0, 1.0), tmp_path / "it"))
    assert got == snapshot() and bytes(got.data) == (tmp_path / "it").read_bytes()


def test_what_was_wrong_is_written_over(tmp_path: Path) -> None:
    """A donor that has other weights may have been asked first."""
    got = asyncio.run(get(donors_of(2.0, 1.0), tmp_path / "it"))
    assert got == snapshot()


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_lies_on_the_disk_takes_no_memory(tmp_path: Path, on_disk: bool) -> None:
    size_bytes, piece = 16 * CHUNK_BYTES, memoryview(bytes(CHUNK_BYTES))

    async def write_all() -> memoryview:
        loop = asyncio.get_running_loop()
        path = tmp_path / "it"
        landing = OnDisk(path, size_bytes, disk=Disk()) if on_disk else InMemory(size_bytes)
        for offset in range(0, size_bytes, CHUNK_BYTES):
            written = loop.create_future()
            landing.write(offset, piece, written.set_result)
            assert await written is None
        return landing.data()

    before = memory_bytes()
    data = asyncio.run(write_all())
    assert len(data) == size_bytes and torch.frombuffer(data, dtype=torch.uint8).sum() == 0
    assert (memory_bytes() - before < size_bytes / 2) == on_disk


def memory_bytes() -> int:
    """The memory of this process that no file stands for."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this system does not say")


def test_a_disk_that_is_full_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is fetched."""
    donors = donors_of(1.0, 1.0)

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(get(donors, tmp_path / "it"))


def test_a_write_that_fails_ends_the_fetch(tmp_path: Path) -> None:
    """The folder is gone when the first piece comes."""
    path = tmp_path / "folder" / "it"
    path.parent.mkdir()

    async def story() -> None:
        disk = Disk()

        def landing(size_bytes: int) -> OnDisk:
            made = OnDisk(path, size_bytes, disk=disk)
            path.unlink()
            return made

        wanted = Wanted(LAYOUT, 3, parameters())
        await donors_of(1.0, 1.0).fetches.get(wanted, [PeerId("a"), PeerId("b")], landing)

    with pytest.raises(FileNotFoundError):
        asyncio.run(story())


def test_an_empty_file_is_one(tmp_path: Path) -> None:
    allocate(tmp_path / "it", 0)
    assert not len(mapped(tmp_path / "it"))
