"""Progress as plain lines, for logs and pipes."""

from __future__ import annotations

import time
from collections.abc import Callable

from swarmrt.foreign import for_terminal, printable
from swarmrt.ids import PeerId
from swarmrt.observe.live.progress import Progress
from swarmrt.scheduler.instructions import (
    Report,
    ReportCheckpointFailed,
    ReportEvaluation,
    ReportExpelled,
    ReportHandOver,
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

LINES_OF_A_RUN = 50  # steps are thinned to about so many lines
SAY_S = 30.0  # between two words about what is waited for
FEW_MOVED = 8  # replicas that are named
MAX_WHY = 400  # characters of a reason: a peer's, with what the trainer has put around it


class PlainView:
    """Say what changed. What is waited for is said when it changes, and each half minute."""

    def __init__(
        self,
        progress: Progress,
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress, self._now = progress, now
        self._say_raw = say
        self._waited_for: object = None
        self._said_at = 0.0
        self._told: dict[PeerId, str] = {}  # the last word on each peer that is there
        steps = progress.config.run.steps - progress.start_version
        self._every = max(1, steps // LINES_OF_A_RUN)

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        self._say(text)

    def update(self, report: Report) -> None:
        match report:
            case ReportWaiting():
                self._wait(report)
            case ReportPeer():
                self._peer(report)
            case ReportStep():
                self._step(report)
            case ReportEvaluation(version, loss):
                self._say(f"step {version:>5}  held-out loss {loss:.4f}")
            case ReportMove():
                self._say(move_text(report))
            case _ if text := trouble_text(report):
                self._say(text)

    def _peer(self, report: ReportPeer) -> None:
        """Tell who comes and goes; beacons of those that are known say nothing new."""
        told, state = self._told.get(report.peer), report.state
        if state == "lost":
            is_news = self._told.pop(report.peer, None) is not None
        else:
            is_news = state in ("ready", "spare", "paused") and state != told
            if is_news:
                self._told[report.peer] = state
        if is_news:
            self._say(f"stage {report.stage}: {report.peer} {state}")

    def _step(self, report: ReportStep) -> None:
        last = self._progress.config.run.steps
        if report.version % self._every == 0 or report.version in (1, last):
            rate = self._progress.recent_tokens_per_s
            self._say(
                f"step {report.version:>5}/{last}  loss {report.loss:.4f}  "
                f"norm {report.norm:.3f}  {rate:,.0f} tokens/s{local_text(report.local)}"
            )

    def _say(self, text: str) -> None:
        self._say_raw(for_terminal(text))

    def _wait(self, report: ReportWaiting) -> None:
        """Tell for whom the run waits; that more of them load their state is no news."""
        news, now = (report.ready, report.why), self._now()
        if news != self._waited_for or now - self._said_at >= SAY_S:
            self._waited_for, self._said_at = news, now
            self._say(waiting_text(report))


def move_text(report: ReportMove) -> str:
    """Return what becomes of a process that serves where it helps most."""
    what = {
        "loads": f"loads the state of stage {report.stage}",
        "serves": f"is to serve stage {report.stage}",
        "forgets": f"gives the state of stage {report.stage} up",
        "stays": f"stays as it is, without stage {report.stage}",
    }[report.what]
    return f"{report.peer} {what}: {printable(report.reason, MAX_WHY)}"


def local_text(local: tuple[LocalWork, ...]) -> str:
    """Return how far replicas have gone by themselves, in the stages where that is furthest."""
    if not local:
        return ""
    late, drift = max(work.late for work in local), max(work.drift for work in local)
    steps = sum(work.steps for work in local)
    return f"  {steps} own steps  {late:.0%} late  drift {drift:.2g}"


def waiting_text(report: ReportWaiting) -> str:
    """Return which stages are not served, how many load their state, and why others could not."""
    missing = [
        stage
        for stage, (ready, needed) in enumerate(zip(report.ready, report.needed, strict=True))
        if ready < needed
    ]
    stages = [f"stage {stage} ({_present(report, stage)})" for stage in missing]
    why = dict(enumerate(report.why))
    reasons = [
        f"; stage {stage}: {printable(why[stage], MAX_WHY)}" for stage in missing if why.get(stage)
    ]
    return f"waiting for peers: {', '.join(stages)}{''.join(reasons)}"


def _present(report: ReportWaiting, stage: int) -> str:
    ready = f"{report.ready[stage]} of {report.needed[stage]}"
    loading = report.loading[stage] if report.loading else 0
    return f"{ready}, {loading} getting the state" if loading else ready


def trouble_text(report: Report) -> str:
    """Return what went wrong, and what is done about it; empty for other reports."""
    match report:
        case ReportRecovery(step, "fenced", count, reason):
            again = f"; {count} of its gradients are computed again" if count else ""
            return f"step {step + 1}: without {printable(reason, MAX_WHY)}{again}"
        case ReportRecovery(step, "skipped", _, reason):
            return f"SKIPPED step {step + 1}: {printable(reason, MAX_WHY)}"
        case ReportPause(stage, reason):
            why = printable(reason, MAX_WHY)
            return f"PAUSED: stage {stage} has no replica left ({why}); waiting for one"
        case ReportHandOver(stage, peer):
            return (
                f"stage {stage}: its last replica {peer} wants to leave; it stays until "
                "another one takes over, or its owner insists"
            )
        case ReportRollback(version, lost_steps, reason):
            why = printable(reason, MAX_WHY)
            return f"ROLLED BACK to step {version}: {why}; {lost_steps} steps are done again"
        case ReportExpelled(peer, reason):
            why = printable(reason, MAX_WHY)
            return f"EXPELLED: {peer} does not take part in this run any more: {why}"
        case ReportStall(seconds, awaited):
            what = printable(awaited, MAX_WHY)
            return f"nothing has come forward for {seconds:.0f} s; waiting for {what}"
        case ReportUnable(stage, peer, reason):
            return f"stage {stage}: {peer} cannot serve it: {printable(reason, MAX_WHY)}"
        case ReportIslands(number, moved):
            islands = "1 island" if number == 1 else f"{number} islands"
            who = ", ".join(f"{peer} in {island}" for peer, island in moved[:FEW_MOVED])
            others = f" and {len(moved) - FEW_MOVED} more" if len(moved) > FEW_MOVED else ""
            return f"{islands} from now on: {who}{others}"
        case ReportUnlike(stage, peer):
            return (
                f"stage {stage}: {peer} rounds differently than the others, as other hardware or "
                "another build does; from now on the owners of parts update, and all adopt their "
                "bytes"
            )
        case ReportLate(version, seconds, awaited):
            what = printable(awaited, MAX_WHY)
            return f"the update to step {version} takes {seconds:.0f} s; waiting for {what}"
        case ReportCheckpointFailed(version, reason):
            why = printable(reason, MAX_WHY)
            return f"the checkpoint of step {version} failed, another one follows: {why}"
    return ""
