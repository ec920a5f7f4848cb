"""Logs that grow for months: in parts, compressed, and never the whole disk."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from swarmrt.config import RunConfig
from swarmrt.errors import UsageError
from swarmrt.ids import PeerId
from swarmrt.lab.swarm.commits import Commits
from swarmrt.log_files import Follower, compress, is_whole, read_lines, turn_over
from swarmrt.observe.audit import audit
from swarmrt.observe.live import progress
from swarmrt.observe.live.members import describe_members
from swarmrt.observe.log import read_entries
from swarmrt.runtime.process.event_log import EventLog
from swarmrt.runtime.process.turning_log import TurningLog
from swarmrt.scheduler.instructions import ReportStep
from swarmrt.trust.book import AccessBook, Joined


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
    others = sum(f.stat().st_size for f in tmp_path.iterdir() if f not in packed)  # as it was busy
    assert sum(file.stat().st_size for file in packed) < (written - others) / 3


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


@pytest.mark.parametrize("packs", [False, True])
def test_a_follower_reads_each_line_once_into_whichever_file_it_went(
    tmp_path: Path, packs: bool
) -> None:
    path = tmp_path / "metrics.jsonl"
    follower, read = Follower(path), b""
    assert follower.read() == b""
    for number in range(40):
        with path.open("a") as file:
            file.write(json.dumps({"line": number}) + "\n")
        if number % 3 == 0:
            read += follower.read()
        if number % 5 == 0:
            turn_over(path)
            read += follower.read() if number % 2 else b""  # there is no newest one
            path.touch()
            if packs:
                compress(path)
    read += follower.read()
    assert [json.loads(line)["line"] for line in read.splitlines()] == list(range(40))
    assert follower.read() == b""


def test_what_a_trainer_tells_of_its_steps_is_in_parts_and_is_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next incarnation, whoever follows the run, and `swarmrt members`."""
    monkeypatch.setattr(progress, "TurningLog", partial(TurningLog, part_bytes=2000))
    commits = Commits(tmp_path / "metrics.jsonl")
    for start in (0, 50):
        steps = progress.Progress(RunConfig(), tmp_path, start_version=start)
        for version in range(start + 1, start + 51):
            digests = (((PeerId("A"), "x"),), ((PeerId("B"), "y"),))
            steps.add(ReportStep(version, 1.0 * version, 100, 1.0, 0.5, digests, True))
            if version % 7 == 0:
                commits.read()
        steps.close()
    commits.read()
    assert len(list(tmp_path.glob("metrics.*.jsonl.zst"))) >= 1
    assert (commits.number, commits.version, commits.members(1)) == (100, 100, ("B",))
    last = progress.Progress(RunConfig(), tmp_path, start_version=100)
    assert last.losses == [(version, version) for version in range(1, 101)]
    last.close()
    book = AccessBook("open", 2)
    book.read([Joined(0.0, PeerId("A"), "")])
    assert "100 of 100" in "".join(describe_members(tmp_path, book))


PRINTS = """
import os, sys
from pathlib import Path
from threading import Thread
from swarmrt.runtime.process.own_output import OwnOutput

path, said = Path(sys.argv[1]), {1: 0, 2: 0}

def say(stream):
    while len(list(path.parent.glob("*.log*"))) < 4:
        for _ in range(500):
            os.write(stream, f"{stream} {said[stream]}\\n".encode())
            said[stream] += 1

output = OwnOutput(path, look_s=0.02, part_bytes=10_000)
threads = [Thread(target=say, args=(stream,)) for stream in said]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
output.close()
path.with_name("said").write_text(f"{said[1]} {said[2]}")
"""


def test_what_a_process_prints_is_kept_short_and_no_line_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    with path.open("ab") as file:
        command = [sys.executable, "-c", PRINTS, str(path)]
        subprocess.run(command, stdout=file, stderr=file, check=True, timeout=60)
    lines = list(read_lines(path))
    said = dict(enumerate(map(int, (tmp_path / "said").read_text().split()), start=1))
    for stream, number in said.items():
        expected = [f"{stream} {line}\n" for line in range(number)]
        assert [line for line in lines if line.startswith(f"{stream} ")] == expected
    assert len(lines) == sum(said.values())
