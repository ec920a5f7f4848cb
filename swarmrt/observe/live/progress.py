"""The progress of a run so far, gathered from the trainer's reports."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swarmrt.config import RunConfig
from swarmrt.ids import PeerId
from swarmrt.log_files import json_lines
from swarmrt.runtime.process.turning_log import TurningLog
from swarmrt.scheduler.instructions import (
    Report,
    ReportArranged,
    ReportCheckpointFailed,
    ReportEvaluation,
    ReportExpelled,
    ReportIslands,
    ReportLate,
    ReportMove,
    ReportPause,
    ReportPeer,
    ReportRecovery,
    ReportRollback,
    ReportStall,
    ReportStep,
    ReportUnable,
    ReportUnlike,
    ReportWaiting,
)
from swarmrt.scheduler.local_work import LocalWork

MOST_LATE = 0.1  # of the gradients, that costs little
LAST_VERSIONS = 100


@dataclass(frozen=True)
class Summary:
    """The last word of `train` and `local`, and their JSON under --json."""

    run_dir: str
    steps: int
    loss_first: float | None
    loss_last: float | None
    eval_loss: float | None
    tokens_per_s: float
    microbatches: int
    replica_digests_equal: bool
    unigram_loss: float | None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Progress:
    """Fold reports into what a person wants to know, and write `metrics.jsonl`."""

    config: RunConfig
    run_dir: Path
    start_version: int = 0
    unigram_loss: float | None = None
    version: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    """The microbatches that are in a version, where steps have not all as many."""
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    peers: dict[PeerId, ReportPeer] = field(default_factory=dict)
    arranged: dict[PeerId, ReportArranged] = field(default_factory=dict)
    """The processes that move, or stand by for another stage than their own."""
    waiting: ReportWaiting | None = None
    digests_equal: bool = True
    recoveries: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    train_s: float = 0.0
    recent_tokens_per_s: float = 0.0
    local: tuple[LocalWork, ...] = ()  # of each stage, for the last version
    late: deque[float] = field(default_factory=lambda: deque(maxlen=LAST_VERSIONS))
    """The late fraction of the last versions, each of the stage with the most."""

    def __post_init__(self) -> None:
        self.version = self.start_version
        self._read_earlier(self.run_dir / "metrics.jsonl")
        self._metrics = TurningLog(self.run_dir / "metrics.jsonl")

    def add(self, report: Report) -> None:
        match report:
            case ReportWaiting():
                self.waiting = report
            case ReportPeer():
                self._add_peer(report)
            case ReportRecovery(step, what, count, reason):
                self.recoveries[what] += count
                # the screen counts steps from 1: this one leads to that version
                self._write(step=step + 1, recovery=what, count=count, reason=reason)
            case ReportPause(stage, reason):
                self._write(version=self.version, paused_for_stage=stage, reason=reason)
            case ReportRollback():
                self._roll_back(report)
            case ReportExpelled(peer, reason):
                self._write(version=self.version, expelled=peer, reason=reason)
            case ReportStall(seconds, awaited):
                self._write(version=self.version, stalled_s=seconds, awaited=awaited)
            case ReportUnable(stage, peer, reason):
                self._write(version=self.version, unable=peer, stage=stage, reason=reason)
            case ReportIslands(number, moved):
                self._write(version=self.version, islands=number, moved=dict(moved))
            case ReportMove(peer, stage, what, reason):
                self._write(version=self.version, move=what, peer=peer, stage=stage, reason=reason)
            case ReportArranged():
                self.arranged.pop(report.peer, None)
                if report.phase or report.stands_by or report.loads:
                    self.arranged[report.peer] = report
            case ReportUnlike(stage, peer):
                self._write(version=self.version, unlike=peer, stage=stage)
            case ReportLate(version, seconds, awaited):
                self._write(version=version, late_s=seconds, awaited=awaited)
            case ReportCheckpointFailed(version, reason):
                self._write(version=version, checkpoint_failed=reason)
            case ReportStep():
                self._add_step(report)
            case ReportEvaluation(version, loss):
                self.evaluations.append((version, loss))
                self._write(version=version, eval_loss=loss)

    def _read_earlier(self, path: Path) -> None:
        """Read what earlier incarnations of this run's trainer have written, line by line: of a
        month it is a gigabyte."""
        for values in json_lines(path) if path.exists() else ():
            self._add_earlier(values)

    def _add_earlier(self, values: dict[str, Any]) -> None:
        match values:
            case {"version": int(version), "loss": float(loss)}:
                self._add_loss(version, loss)
                if "microbatches" in values:
                    self.sizes[version] = int(values["microbatches"])
            case {"version": int(version), "eval_loss": float(loss)}:
                self.evaluations.append((version, loss))
            case {"version": int(version), "rollback": _}:
                self._forget_after(version)

    def _add_loss(self, version: int, loss: float) -> None:
        """A version that comes again takes the place of what was lost."""
        if self.losses and self.losses[-1][0] >= version:
            self._forget_after(version - 1)
        self.losses.append((version, loss))

    def _forget_after(self, version: int) -> None:
        self.losses = [point for point in self.losses if point[0] <= version]
        self.evaluations = [point for point in self.evaluations if point[0] <= version]

    def close(self) -> None:
        self._metrics.close()

    @property
    def summary(self) -> Summary:
        usual = self.config.batch.microbatches
        return Summary(
            run_dir=str(self.run_dir),
            steps=self.version,
            loss_first=self.losses[0][1] if self.losses else None,
            loss_last=self.losses[-1][1] if self.losses else None,
            eval_loss=self.evaluations[-1][1] if self.evaluations else None,
            tokens_per_s=self.tokens / self.train_s if self.train_s else 0.0,
            microbatches=sum(self.sizes.get(version, usual) for version, _ in self.losses),
            replica_digests_equal=self.digests_equal,
            unigram_loss=self.unigram_loss,
        )

    def closing_lines(self) -> list[str]:
        """Return lines for people: what the run came to."""
        summary = self.summary
        lines = []
        if summary.loss_first is not None:
            lines.append(
                f"training loss {summary.loss_first:.4f} → {summary.loss_last:.4f} nats a token, "
                f"{summary.tokens_per_s:,.0f} tokens/s"
            )
        if summary.eval_loss is not None and summary.unigram_loss is not None:
            lines.append(
                f"held-out loss {summary.eval_loss:.4f}, where a unigram model has "
                f"{summary.unigram_loss:.4f}"
            )
        lines += self._late_lines()
        equal = "were equal" if summary.replica_digests_equal else "DIFFERED"
        lines.append(f"the replicas of each stage {equal} after every step")
        return lines

    def _late_lines(self) -> list[str]:
        """Return what to do where many gradients were of weights that were gone."""
        late = statistics.median(self.late) if self.late else 0.0
        if late <= MOST_LATE:
            return []
        bound, microbatches = self.config.averaging.most_late, self.config.batch.microbatches
        rarer = (
            f"A lower averaging.most_late, now {bound:g}, makes"
            if late <= bound
            else f"More microbatches in a step (batch.microbatches, now {microbatches}) make"
        )
        return [
            f"{late:.0%} of the gradients were late, which costs quality: an own step fell between "
            f"forward and backward. {rarer} that rarer"
        ]

    def _roll_back(self, report: ReportRollback) -> None:
        """The steps after this version are done again."""
        self.version = report.version
        self._forget_after(report.version)
        self._write(version=report.version, rollback=report.reason, lost_steps=report.lost_steps)

    def _add_peer(self, report: ReportPeer) -> None:
        if report.state == "lost":
            self.peers.pop(report.peer, None)
        else:
            self.peers[report.peer] = report

    def _add_step(self, report: ReportStep) -> None:
        self.waiting = None
        self.version = report.version
        if not report.skipped:
            self._add_loss(report.version, report.loss)
        self.digests_equal &= report.digests_equal
        self.tokens += report.tokens
        self.train_s += report.seconds
        self.recent_tokens_per_s = report.tokens / max(report.seconds, 1e-9)
        self.local = report.local
        if report.local:
            self.late.append(max(work.late for work in report.local))
        size = {"microbatches": report.microbatches} if report.microbatches else {}
        self.sizes |= {report.version: report.microbatches} if size else {}
        local = {"local": [work._asdict() for work in report.local]} if report.local else {}
        self._write(
            version=report.version,
            loss=None if report.skipped else report.loss,
            norm=report.norm,
            tokens=report.tokens,
            seconds=report.seconds,
            digests=[dict(stage) for stage in report.digests],
            digests_equal=report.digests_equal,
            **local,
            **size,
        )

    def _write(self, **values: object) -> None:
        self._metrics.append(json.dumps({"time": time.time(), **values}).encode() + b"\n")
