"""The access book's file: what is written by hand, or cannot be written, ends no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmrt.errors import UsageError
from swarmrt.ids import PeerId
from swarmrt.runtime.access.reception import AccessFile
from swarmrt.trust.book import Joined, Revoked

JOINED, OUT = Joined(1.0, PeerId("QmA"), "one"), Revoked(2.0, "QmA", "it lies")


def test_lines_are_read_once_and_whole(tmp_path: Path) -> None:
    file = AccessFile(tmp_path)
    assert file.read() == []
    file.write(JOINED)
    assert file.read() == [JOINED] and file.read() == []
    with file.path.open("ab") as torn:
        torn.write(b'{"what":"revoked","at":2.0,')
    assert file.read() == []
    with file.path.open("ab") as torn:
        torn.write(b'"who":"QmA","why":"it lies"}\n')
    assert file.read() == [OUT]


def test_line_that_is_none_hides_no_other(tmp_path: Path) -> None:
    file = AccessFile(tmp_path)
    file.path.write_bytes(b"not a line\n")
    file.write(OUT)
    with pytest.raises(UsageError, match="not a line of an access book"):
        AccessFile(tmp_path).read()
    assert file.read(skip=True) == [OUT]
