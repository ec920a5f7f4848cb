"""What a run has done so far, over all incarnations of its trainer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.ids import PeerId
from swarmrt.observe.live.plain import PlainView
from swarmrt.observe.live.progress import Progress
from swarmrt.observe.live.table import LiveView
from swarmrt.runtime.trainer.steps_told import steps_told
from swarmrt.scheduler.instructions import (
    ReportArranged,
    ReportEvaluation,
    ReportMove,
    ReportPeer,
    ReportRecovery,
    ReportRollback,
    ReportStep,
    ReportWaiting,
)
from swarmrt.scheduler.local_work import LocalWork
from swarmrt.scheduler.settings import StepTold
from swarmrt.scheduler.trainer.closing.comparing import TOLD


def step(version: int, loss: float) -> ReportStep:
    return ReportStep(version, loss, 100, 1.0, 0.5, (), True)


def test_resumed_run_is_told_as_one(tmp_path: Path) -> None:
    first = Progress(RunConfig(), tmp_path)
    for version in (1, 2, 3):
        first.add(step(version, 10.0 - version))
    first.add(ReportEvaluation(2, 5.0))
    first.add(ReportEvaluation(3, 4.0))
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1.0, "version": 4, "lo')  # killed while it wrote
    second = Progress(RunConfig(), tmp_path, start_version=2)
    second.add(step(3, 6.5))
    second.close()
    third = Progress(RunConfig(), tmp_path, start_version=2)
    third.close()
    assert third.losses == second.losses == [(1, 9.0), (2, 8.0), (3, 6.5)]
    assert third.evaluations == [(2, 5.0)], "that of step 3 was of work that is lost"
    assert third.summary.loss_first == 9.0
    assert third.summary.microbatches == 3 * RunConfig().batch.microbatches


def test_a_step_has_one_number_on_the_screen_and_in_the_file(tmp_path: Path) -> None:
    progress, said = Progress(RunConfig(), tmp_path), list[str]()
    report = ReportRecovery(638, "skipped", 1, "no finite gradient")
    progress.add(report)
    PlainView(progress, said.append).update(report)
    progress.close()
    assert said == ["SKIPPED step 639: no finite gradient"]
    assert '"step": 639' in (tmp_path / "metrics.jsonl").read_text()


def test_what_is_waited_for_is_said_when_it_changes_and_each_half_minute(tmp_path: Path) -> None:
    progress, said, now = Progress(RunConfig(), tmp_path), list[str](), [0.0]
    view = PlainView(progress, said.append, lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        loading = (0, second % 2)
        view.update(ReportWaiting((1, 0), (1, 2), loading, ("", "")))
    assert len(said) == 4 and said[0] == "waiting for peers: stage 1 (0 of 2)"
    why = "Qm could not serve it: stage 1 needs 9 GB"
    view.update(ReportWaiting((1, 0), (1, 2), (0, 1), ("", why)))
    progress.close()
    shown = f"waiting for peers: stage 1 (0 of 2, 1 getting the state); stage 1: {why}"
    assert said[4:] == [shown]


def test_a_spare_is_told_as_one_and_when_it_is_let_in(tmp_path: Path) -> None:
    progress, said = Progress(RunConfig(), tmp_path), list[str]()
    view = PlainView(progress, said.append)
    for state in ("joining", "spare", "spare", "ready", "ready", "lost", "lost", "spare"):
        view.update(ReportPeer(PeerId("Qm"), 1, state, 3, 0, 0, 0.1))
    progress.close()
    assert said == [f"stage 1: Qm {state}" for state in ("spare", "ready", "lost", "spare")]


def test_who_moves_is_said_and_written_with_the_reason(tmp_path: Path) -> None:
    progress, said, screen = Progress(RunConfig(), tmp_path), list[str](), io.StringIO()
    move = ReportMove(PeerId("Qm1"), 2, "loads", "a newcomer; this stage is the poorest")
    progress.add(move)
    progress.close()
    PlainView(progress, said.append).update(move)
    LiveView(progress, Console(file=screen, width=200)).update(move)
    line = "Qm1 loads the state of stage 2: a newcomer; this stage is the poorest"
    assert said == [line] and screen.getvalue().strip() == line
    written = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (written["move"], written["peer"], written["stage"]) == ("loads", "Qm1", 2)


def test_rollback_takes_back_what_is_lost(tmp_path: Path) -> None:
    progress = Progress(RunConfig(), tmp_path)
    for version in (1, 2, 3):
        progress.add(step(version, 10.0 - version))
    progress.add(ReportRollback(1, 2, "a stage is lost"))
    progress.add(step(2, 8.5))
    progress.close()
    again = Progress(RunConfig(), tmp_path)
    again.close()
    assert again.losses == progress.losses == [(1, 9.0), (2, 8.5)]


def test_the_last_steps_are_found_by_the_next_incarnation(tmp_path: Path) -> None:
    assert steps_told(tmp_path, 8) == ()
    progress = Progress(RunConfig(), tmp_path)
    a, b = PeerId("A"), PeerId("B")
    for version in range(1, 51):
        its = (((a, "x"), (b, "x")), ((a, "y"),))
        progress.add(ReportStep(version, 1.0, 100, 1.0, 0.5 * version, its, True))
        progress.add(ReportEvaluation(version, 5.0))
    progress.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1.0, "version": 51, "seconds": 3.0, "dig')  # killed while it wrote
    told = steps_told(tmp_path, 8)
    assert len(told) == TOLD and told[-1] == StepTold(25.0, (a, b, a))


def test_steps_of_any_number_of_microbatches_are_counted_by_it(tmp_path: Path) -> None:
    """The next incarnation compares how long as many of them take."""
    progress, its = Progress(RunConfig(), tmp_path), (((PeerId("A"), "x"),),)
    for version, size in ((1, 4), (2, 16)):
        progress.add(ReportStep(version, 1.0, 100, 1.0, 2.0, its, True, microbatches=size))
    progress.close()
    assert progress.summary.microbatches == 20
    again = Progress(RunConfig(), tmp_path)
    again.close()
    assert again.summary.microbatches == 20
    assert [step.seconds for step in steps_told(tmp_path, 8)] == [4.0, 1.0]


@pytest.mark.parametrize(
    ("most_late", "advice"),
    [(0.1, "batch.microbatches, now 8"), (0.9, "A lower averaging.most_late, now 0.9")],
)
def test_many_late_gradients_are_said_at_the_end_with_what_to_do(
    most_late: float, advice: str, tmp_path: Path
) -> None:
    config = parse_config({"averaging": {"strategy": "async", "most_late": most_late}}, "test")
    progress = Progress(config, tmp_path)
    for version, late in enumerate((0.05, 0.08, 0.4), start=1):
        local = (LocalWork(4, late, 0.1), LocalWork(4, 0.0, 0.1))
        progress.add(ReportStep(version, 2.0, 100, 1.0, 0.5, (), True, local=local))
    assert not any("late" in line for line in progress.closing_lines())
    for version in (4, 5, 6):
        local = (LocalWork(4, 0.8, 0.1), LocalWork(4, 0.4, 0.1))
        progress.add(ReportStep(version, 2.0, 100, 1.0, 0.5, (), True, local=local))
    [line] = [line for line in progress.closing_lines() if "late" in line]
    assert line.startswith("60% of the gradients were late")
    assert advice in line
    progress.close()


def test_steps_that_replicas_made_by_themselves_are_shown_and_written(tmp_path: Path) -> None:
    local = (LocalWork(4, 0.25, 0.125), LocalWork(6, 0.0, 0.5))
    report = ReportStep(1, 2.0, 100, 1.0, 0.5, (), True, local=local)
    progress, said = Progress(RunConfig(), tmp_path), list[str]()
    view = PlainView(progress, said.append)
    progress.add(report)
    view.update(report)
    progress.close()
    assert said[-1].endswith("10 own steps  25% late  drift 0.5")
    [line] = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert line["local"] == [work._asdict() for work in local]
    for stage in (0, 1):
        progress.add(ReportPeer(PeerId(f"peer{stage}/{stage}"), stage, "ready", 1, 0, 3, 0.1))
    drawn = io.StringIO()
    console = Console(file=drawn, width=160)
    console.print(LiveView(progress, console).render())
    shown = drawn.getvalue()
    assert "own steps" in shown and "25%" in shown and "0.5" in shown


MOVES = (
    ReportArranged(PeerId("Qm-mover-a"), (0,), 1, "loading"),
    ReportArranged(PeerId("Qm-mover-b"), (1, 2), 2, "serving both"),
    ReportArranged(PeerId("Qm-mover-c"), (0, 1), 0, "draining", loads=(2,)),
    ReportArranged(PeerId("Qm-mover-d"), (2,), stands_by=(0,)),
    ReportArranged(PeerId("Qm-mover-e"), (), 0, "loading"),
)


@pytest.mark.parametrize("width", [80, 120])
def test_moves_under_way_and_standbys_are_in_the_view(tmp_path: Path, width: int) -> None:
    progress = Progress(RunConfig(), tmp_path)
    for number in range(6):
        progress.add(ReportPeer(PeerId(f"Qm-mover-{number}/0"), 0, "ready", 7, 1, 90, 0.02))
    for report in MOVES:
        progress.add(report)
    screen = drawn(progress, width)
    assert max(map(len, screen.splitlines())) <= width
    for line in (
        "moves     …-mover-a  stage 0 → 1  loading",
        "          …-mover-b  stage 1 → 2  serving both",
        "          …-mover-c  stage 1 → 0  draining",
        "          …-mover-e  stage – → 0  loading",
        "stand by  for stage 0: …-mover-d",
        "          for stage 2: …-mover-c (loading)",
    ):
        assert line in screen, screen
    for report in MOVES:
        progress.add(ReportArranged(report.peer, (0,)))
    progress.add(ReportArranged(PeerId("gone")))
    progress.close()
    assert not progress.arranged and "moves" not in drawn(progress, width)


def test_of_many_moves_and_standbys_a_few_are_shown(tmp_path: Path) -> None:
    progress = Progress(RunConfig(), tmp_path)
    for number in range(50):
        progress.add(ReportArranged(PeerId(f"m{number:02}"), (0,), 1, "loading", stands_by=(2,)))
    progress.close()
    screen = drawn(progress, 80)
    assert screen.count("loading") == 6 and "and 44 more" in screen
    assert "for stage 2: …m00, …m01, …m02, …m03 and 46 more" in screen


def drawn(progress: Progress, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(LiveView(progress, console).render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
