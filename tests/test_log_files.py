"""Logs that grow for months: in parts, compressed, and never the whole disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarmrt.errors import UsageError
from swarmrt.log_files import compress, is_whole, read_lines, turn_over
from swarmrt.observe.audit import audit
from swarmrt.observe.log import read_entries
from swarmrt.runtime.process.event_log import EventLog


def numbers(log: Path) -> list[int]:
    return [entry["line"] for entry in read_entries(log)]


def test_a_log_in_parts_reads_as_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for incarnation in range(3):
        log = EventLog(path, part_bytes=20_000)
        for line in range(2_000):
            log.write({"line": 2_000 * incarnation + line, "text": "x" * 30})
        log.close()
    assert numbers(path) == list(range(6_000)) and is_whole(path)
    packed = list(tmp_path.glob("events.*.jsonl.zst"))
    assert len(packed) > 3 and not list(tmp_path.glob(".*"))
    written = sum(len(line) for line in read_lines(path))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < written / 3


def parts(tmp_path: Path, number: int) -> Path:
    path = tmp_path / "events.jsonl"
    for line in range(number):
        path.write_text(json.dumps({"line": line}) + "\n")
        turn_over(path)
    path.write_text(json.dumps({"line": number}) + "\n")
    return path


def test_parts_are_read_in_their_order_compressed_or_not(tmp_path: Path) -> None:
    path = parts(tmp_path, 12)
    assert numbers(path) == list(range(13))
    compress(path)
    assert numbers(path) == list(range(13))


def test_a_killed_compressor_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    path = parts(tmp_path, 2)
    whole = (tmp_path / "events.1.jsonl").read_bytes()
    compress(path)
    (tmp_path / "events.1.jsonl").write_bytes(whole)  # it was to be removed next
    (tmp_path / ".events.3.jsonl.zst.tmp").write_bytes(b"torn")
    assert numbers(path) == [0, 1, 2]
    turn_over(path)
    path.touch()
    compress(path)
    assert numbers(path) == [0, 1, 2]


def test_the_oldest_go_when_there_is_no_room_and_an_audit_says_so(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    path = parts(tmp_path / "trainer", 9)
    compress(path, kept_bytes=100)
    kept = numbers(path)
    assert 1 < len(kept) < 9 and kept == list(range(kept[0], 10)) and not is_whole(path)
    with pytest.raises(UsageError, match="its beginning was let go"):
        audit(tmp_path)
