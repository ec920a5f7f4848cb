"""Logs on a disk that is full for a while, or for good."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarmrt.errors import UsageError
from swarmrt.log_files import compress, turn_over
from swarmrt.log_writer import LogWriter
from swarmrt.observe.audit import audit
from swarmrt.observe.log import Gap, read_entries
from swarmrt.runtime.process.event_log import EventLog
from tests.disks import full_after


def line(number: int) -> bytes:
    return json.dumps({"line": number, "text": "x" * 50}).encode() + b"\n"


def numbers(path: Path) -> list[int]:
    return [entry["line"] for entry in read_entries(path)]


def test_what_a_full_disk_does_not_take_is_written_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In its order, and the line that was torn is whole."""
    path = tmp_path / "events.jsonl"
    writer = LogWriter(path)
    writer.append(line(0))
    with full_after(int(2.5 * len(line(0)))):
        for number in range(1, 9):
            writer.append(line(number))
        assert path.read_bytes() == (line(0) + line(1) + line(2))[: writer.size_bytes]
        assert writer.size_bytes == int(2.5 * len(line(0)))
    writer.append(line(9))
    assert not writer.waits
    writer.close()
    assert numbers(path) == list(range(10))
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and "waits in memory" in said[0] and "written again" in said[1], said


def test_an_event_log_goes_on_after_its_disk_was_full(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path, part_bytes=1000)
    for number in range(100):
        with full_after(700 if number % 10 else 1 << 20):
            log.write({"line": number, "text": "x" * 50})
    assert not log.lacks_room()
    log.close()
    assert numbers(path) == list(range(100))
    assert len(list(tmp_path.glob("events.*.jsonl.zst"))) >= 1


def test_memory_for_what_waits_is_bounded_and_an_audit_says_what_is_missing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "trainer" / "events.jsonl"
    writer = LogWriter(path, most_waiting_bytes=5 * len(line(10)))
    with full_after(0):
        for number in range(10, 30):
            writer.append(line(number))
    writer.append(line(30))
    writer.append(line(31))
    writer.close()
    lines = path.read_text().splitlines()
    assert [json.loads(text).get("line") for text in lines] == [10, 11, 12, 13, 14, None, 30, 31]
    assert json.loads(lines[5]) == {"lost_bytes": 15 * len(line(10))}
    with pytest.raises(Gap, match="bytes of it were lost while its disk was full"):
        numbers(path)
    path.write_text(lines[5])
    with pytest.raises(UsageError, match="cannot be followed"):
        audit(tmp_path)


def test_a_log_that_ends_on_a_full_disk_says_what_it_has_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = LogWriter(tmp_path / "events.jsonl")
    with full_after(0):
        writer.append(line(0))
        writer.close()
    assert f"its last {len(line(0))} bytes could not be written" in caplog.text


def test_compressing_on_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(map(line, range(100))))
    turn_over(path)
    path.write_bytes(line(100))
    with full_after(10), pytest.raises(OSError):
        compress(path)
    assert numbers(path) == list(range(101))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["events.1.jsonl", "events.jsonl"]
