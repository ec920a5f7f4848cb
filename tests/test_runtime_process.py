"""The log that a real process writes."""

from __future__ import annotations

import json
from pathlib import Path

from swarmrt.runtime.process import EventLog
from swarmrt.scheduler.events import CheckpointFailed
from swarmrt.scheduler.recording import from_plain, record


def test_text_that_is_no_utf8_is_logged(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    event = CheckpointFailed(3, "cannot write /data/\udcff")
    log.write(record(1.0, event, []))
    log.close()
    [line] = (tmp_path / "events.jsonl").read_text().splitlines()
    assert from_plain(json.loads(line)["event"]) == event
