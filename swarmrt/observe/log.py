"""The logs of a run's processes, read: `events.jsonl` with its types, the others line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from swarmrt.errors import UsageError
from swarmrt.ids import PeerId
from swarmrt.log_files import json_lines, read_lines
from swarmrt.log_writer import LOST
from swarmrt.messages import MessageBase
from swarmrt.scheduler.events import Received
from swarmrt.scheduler.recording import FetchRecord, Header, Record, of_json

M = TypeVar("M", bound=MessageBase)


class Gap(UsageError):
    """A log of which something is missing."""


def read_records(log: Path) -> Iterator[Header | Record]:
    """Yield the records of a core's log in order, without those about states that are fetched."""
    for record in read_all(log):
        if not isinstance(record, FetchRecord):
            yield record


def read_all(log: Path) -> Iterator[Header | Record | FetchRecord]:
    """Yield the records of a core's log in order. A line that a kill has torn is left out.

    Raises Gap where some were lost for want of room, and UsageError where a record is of another
    version of swarmrt.
    """
    for line in read_lines(log):
        try:
            yield of_json(line)
        except msgspec.DecodeError:
            continue
        except UsageError as error:
            _refuse_gap(log, json.loads(line))
            raise UsageError(f"{log}: {error}") from None


def _refuse_gap(log: Path, entry: dict[str, Any]) -> None:
    if entry.keys() == {LOST}:
        raise Gap(
            f"{log}: {entry[LOST]} bytes of it were lost while its disk was full; what came of "
            "gradients cannot be followed"
        )


def what_happened(log: Path) -> Iterator[Record]:
    """Yield the records of a core's log, over all its incarnations; none while it is not there."""
    if log.exists():
        yield from (record for record in read_records(log) if isinstance(record, Record))


def received(log: Path, kind: type[M]) -> Iterator[tuple[float, PeerId, M]]:
    """Yield each message of a kind that came: when, by the process's own clock, and from whom."""
    for record in what_happened(log):
        match record.event:
            case Received(sender, message) if isinstance(message, kind):
                yield record.now, sender, message


def read_entries(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log that no core has written. One that a kill has torn is left out.

    Raises Gap where some were lost for want of room.
    """
    for entry in json_lines(log):
        _refuse_gap(log, entry)
        yield entry


def read_faults(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield what the lab did to the run, and processes to themselves, as they wrote it down."""
    for pattern in ("faults.jsonl", "trainer/faults.jsonl", "peers/*/faults.jsonl"):
        for path in sorted(run_dir.glob(pattern)):
            yield from read_entries(path)
