"""A real process around a core, and the log that it writes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import torch

from swarmrt.messages import Finish
from swarmrt.runtime.faults.failpoints import Failpoints
from swarmrt.runtime.process.event_log import EventLog
from swarmrt.runtime.process.process import Process
from swarmrt.scheduler.events import CheckpointFailed, Received, Started
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.recording import Record, of_json
from tests.scheduler.peer_core import TRAINER, Peer


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


def test_core_that_has_stopped_keeps_nothing_of_what_still_comes(tmp_path: Path) -> None:
    """Another seat of its process goes on, and so do those who talk to it."""
    peer, acted = Peer().core, list[Instruction]()

    async def story() -> None:
        log = EventLog(tmp_path / "events.jsonl")
        process = Process(peer.seat.settings, acted.append, log, Failpoints())
        process.feed(Started())
        process.feed(Received(TRAINER, Finish("it is over")))
        stop = await process.stopped
        assert stop.reason == "it is over"
        tensors = [torch.zeros(1)]
        for _ in range(100):
            process.feed(Received(TRAINER, Finish("again")), tensors)
        assert not process._waiting
        process.close()

    asyncio.run(story())
