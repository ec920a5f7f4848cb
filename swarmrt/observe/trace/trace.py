"""The timeline of all processes of a run, from what each recorded: Chrome trace events.

Perfetto (https://ui.perfetto.dev) opens the file; nothing leaves the browser. The logs are read
twice, a record at a time: for the clocks and for who heard whom, then for the timeline.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from swarmrt.errors import UsageError
from swarmrt.ids import PeerId, peer_of
from swarmrt.observe.log import read_entries, read_faults
from swarmrt.observe.trace.clocks import Offset, align
from swarmrt.observe.trace.deliveries import Deliveries, Delivery, Incarnation
from swarmrt.observe.trace.rows import Rows
from swarmrt.observe.trace.timeline import Timeline
from swarmrt.scheduler.instructions import ReportStep
from swarmrt.scheduler.recording import Record

NAME_CHARS = 8  # of a peer's identity
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass
class Trace:
    """The timeline that was written."""

    spans: int
    arrows: int
    processes: list[str]
    offsets: list[Offset | None]  # of each process's clock, from the first trainer's
    seconds: float  # from the first record to the last

    def lines(self) -> list[str]:
        """Return lines for people."""
        named = zip(self.processes, self.offsets, strict=True)
        return [
            f"{self.spans} spans and {self.arrows} arrows of {len(self.processes)} processes, "
            f"{self.seconds:.1f} s",
            *(f"  {name}: {_clock(offset)}" for name, offset in named),
            "open it at https://ui.perfetto.dev",
        ]


def _clock(offset: Offset | None) -> str:
    if offset is None:
        return "clock not known: no message connects it with the trainer; shown from its start on"
    if not math.isfinite(offset.bound_s):
        return f"clock {offset.seconds:+.6f} s; not sure: messages went one way only"
    return f"clock {offset.seconds:+.6f} s, within {offset.bound_s:.6f} s"


def trace(run_dir: Path, out: Path) -> Trace:
    """Write a run's timeline. Raises UsageError when it is no run, or `out` cannot be written."""
    logs = logs_of(run_dir)
    if out.exists() and not out.is_file():
        raise UsageError(f"{out}: cannot be written: it is not a file")
    try:
        deliveries = Deliveries(logs)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}") from None
    if not any(process.records for process in deliveries.incarnations):
        raise UsageError(f"{run_dir}: its logs hold no events yet")
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8") as file:
                written = _Writing(deliveries, file).write(run_dir)
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
    return written


def logs_of(run_dir: Path) -> list[Path]:
    """The trainer's log, then the peers'. Raises UsageError when there is none of a trainer."""
    log = run_dir / "trainer" / "events.jsonl"
    if not log.is_file():
        raise UsageError(f"{log}: no such file; is {run_dir} a run folder?")
    return [log, *sorted(run_dir.glob("peers/**/events.jsonl"))]


class _Writing:
    """The second reading."""

    def __init__(self, deliveries: Deliveries, file: TextIO) -> None:
        self._deliveries, self._file = deliveries, file
        self._processes = deliveries.incarnations
        self._offsets = align(deliveries.shortest(), len(self._processes))
        lived = [(n, process) for n, process in enumerate(self._processes) if process.records]
        self._zero = min(process.first - self._ahead(n) for n, process in lived)
        self._end = max(process.last - self._ahead(n) for n, process in lived)
        self._spans = self._arrows = 0
        self._committed: dict[int, int] = {}  # version → microseconds
        self._is_first = True

    def write(self, run_dir: Path) -> Trace:
        self._file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        timeline, current = None, -1
        for number, record in self._deliveries.records():
            if timeline is None or number != current:
                if timeline is not None:
                    timeline.end()
                timeline, current = self._timeline(number), number
            if isinstance(record, Record):
                now = self._common(record.now, number)
                timeline.add(record, now)
                self._note_commits(record, now)
        if timeline is not None:
            timeline.end()
        self._write_faults(run_dir)
        self._file.write("\n]}\n")
        names = [name_of(process) for process in self._processes]
        seconds = self._end - self._zero
        return Trace(self._spans, self._arrows, names, self._offsets, seconds)

    def _timeline(self, number: int) -> Timeline:
        process = self._processes[number]
        place = 1 if process.stage is None else process.stage + 2
        rows = Rows(number + 1, name_of(process), place, self._emit)
        talks = self._deliveries.talks

        def sent(to: str) -> Delivery | None:
            return talks[process.me, to].next_sent()

        def got(sender: str) -> int | None:
            return talks[sender, process.me].next_got()

        def arrival(delivery: Delivery) -> int:
            return self._common(delivery.at, delivery.by)

        return Timeline(rows, process.stage is None, sent, got, arrival)

    def _ahead(self, number: int) -> float:
        """Return the seconds from the trainer's clock. What nothing connects with it begins when it
        did."""
        offset = self._offsets[number]
        if offset is None:
            return self._processes[number].first - self._processes[0].first
        return offset.seconds

    def _common(self, now: float, number: int) -> int:
        """Microseconds since the beginning of the run, on the first trainer's clock."""
        return round((now - self._ahead(number) - self._zero) * 1e6)

    def _emit(self, event: dict[str, Any]) -> None:
        self._spans += event["ph"] == "X"
        self._arrows += event["ph"] == "f"
        if not self._is_first:
            self._file.write(",\n")
        self._is_first = False
        self._file.write(_encode(event))

    # ------------------------------------------------------------------ faults made on purpose

    def _note_commits(self, record: Record, now: int) -> None:
        for instruction in record.instructions:
            if isinstance(instruction, ReportStep):
                self._committed[instruction.version] = now

    def _write_faults(self, run_dir: Path) -> None:
        """Write faults. They are noted by the time of day, which the metrics note of every commit
        too."""
        faults, metrics = list(read_faults(run_dir)), run_dir / "metrics.jsonl"
        if not faults or not metrics.is_file():
            return
        days = {
            m["version"]: m["time"] for m in read_entries(metrics) if "time" in m and "version" in m
        }
        both = days.keys() & self._committed.keys()
        if not both:
            return
        zero = statistics.median(days[v] - self._committed[v] / 1e6 for v in both)
        rows = Rows(len(self._processes) + 1, "faults made on purpose", 0, self._emit)
        for fault in faults:
            rows.instant(str(fault["kind"]), round((fault["time"] - zero) * 1e6))


def name_of(process: Incarnation) -> str:
    """Return a name for people."""
    again = f", start {process.start}" if process.start > 1 else ""
    if process.stage is None:
        return f"trainer{again}"
    peer = peer_of(PeerId(process.me))
    short = peer if len(peer) <= NAME_CHARS else f"{peer[:NAME_CHARS]}…"
    return f"stage {process.stage} · peer {short}{again}"
