"""The log that a real process writes."""

from __future__ import annotations

import json
from pathlib import Path

from swarmrt.runtime.process.event_log import EventLog
from swarmrt.scheduler.events import CheckpointFailed
from swarmrt.scheduler.recording import Record, of_json


def test_text_that_is_no_utf8_is_logged(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    event = CheckpointFailed(3, "cannot write /data/\udcff")
    log.write(Record(1.0, event, []))
    log.close()
    [line] = (tmp_path / "events.jsonl").read_text().splitlines()
    assert of_json(line) == Record(1.0, CheckpointFailed(3, r"cannot write /data/\udcff"), [])


def test_log_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It has the keys of seals, with which somebody else could be spoken for."""
    path = tmp_path / "events.jsonl"
    log = EventLog(path, part_bytes=100)
    for number in range(20):
        log.write({"line": number})
    log.close()
    parts = sorted(tmp_path.iterdir())
    assert len(parts) >= 2 and {part.stat().st_mode & 0o777 for part in parts} == {0o600}


def test_lines_wait_for_the_messages_that_leave_together(tmp_path: Path) -> None:
    path, gathering = tmp_path / "events.jsonl", True
    log = EventLog(path, waits=lambda: gathering)
    log.write({"line": 1})
    log.write({"line": 2})
    assert not path.read_text()
    log.flush()
    gathering = False
    log.write({"line": 3})
    assert [json.loads(line)["line"] for line in path.read_text().splitlines()] == [1, 2, 3]
    log.close()
    log.flush()
