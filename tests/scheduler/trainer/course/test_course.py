"""The course of a run: what happens in each phase, and what holds after it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Apply
from swarmrt.scheduler import trainer as scheduler_trainer
from swarmrt.scheduler.settings import TrainerSettings
from swarmrt.scheduler.trainer.closing.sync.commit import Commit
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound
from swarmrt.scheduler.trainer.course import course as course_module
from swarmrt.scheduler.trainer.course.course import NEXT, Course, RunPhase, Turn

LAST = 9
START = 3


def course(*, resume: bool = False) -> Course:
    settings = TrainerSettings(
        me=PeerId("trainer"),
        seed=0,
        epoch=2,
        start_version=START,
        steps=LAST,
        microbatches=2,
        eval_every=0,
        eval_microbatches=0,
        checkpoint_every=0,
        needed=(1, 1),
        start_digests=("a", "b"),
        record_ttl_s=60.0,
        resume=resume,
    )
    return Course(settings)


def a_round(it: Course) -> PrepareRound:
    return PrepareRound(it.epoch, it.version, 7, ((), ()), ((), ()), tokens=1, began_at=0.0)


def a_commit(it: Course) -> Commit:
    apply = Apply(it.epoch, it.version, 7, 1.0, False)
    return Commit(
        version=it.version + 1,
        num_stages=2,
        expected={},
        apply=apply,
        agreed=("", ""),
        copied_stages=frozenset(),
        loss=1.0,
        tokens=1,
        seconds=1.0,
        checkpoint=False,
    )


DO: dict[Turn, Callable[[Course], None]] = {
    Turn.SETTLED: lambda it: it.settle(),
    Turn.SERVED: lambda it: it.serve(),
    Turn.PREPARES: lambda it: it.prepare(a_round(it)),
    Turn.VOID: lambda it: it.void(),
    Turn.ANNOUNCED: lambda it: it.announce(a_commit(it), (7, 1.0)),
    Turn.GOES_BACK: lambda it: it.go_back(1, ("c", "d")),
    Turn.ENDS: lambda it: it.end(),
}

WAY_TO: dict[RunPhase, tuple[Turn, ...]] = {
    RunPhase.HAILING: (),
    RunPhase.WAITING: (Turn.SETTLED,),
    RunPhase.TRAINING: (Turn.SETTLED, Turn.SERVED),
    RunPhase.PREPARING: (Turn.SETTLED, Turn.SERVED, Turn.PREPARES),
}


@pytest.mark.parametrize("turn", Turn)
@pytest.mark.parametrize("phase", WAY_TO)
def test_each_phase_takes_the_turns_of_the_table_and_no_others(phase: RunPhase, turn: Turn) -> None:
    it = course(resume=True)
    for step in WAY_TO[phase]:
        DO[step](it)
    assert it.phase is phase
    if turn in NEXT[phase]:
        DO[turn](it)
        assert it.phase is NEXT[phase][turn]
        assert (it.round is not None) == (it.phase is RunPhase.PREPARING) or turn is Turn.ENDS
    else:
        with pytest.raises(AssertionError):
            DO[turn](it)
        assert it.phase is phase


def test_a_version_is_announced_then_committed_and_only_then_is_the_next_one_prepared() -> None:
    it = course()
    it.serve()
    it.prepare(a_round(it))
    it.void()
    assert (it.version, it.void_rounds) == (START, 1)
    it.prepare(a_round(it))
    it.announce(a_commit(it), (7, 1.0))
    assert (it.version, it.update, it.digests, it.void_rounds) == (4, (7, 1.0), ("", ""), 0)
    with pytest.raises(AssertionError):
        it.prepare(a_round(it))
    it.committed(("e", "f"))
    assert (it.commit, it.digests) == (None, ("e", "f"))
    it.prepare(a_round(it))


def test_going_back_leaves_nothing_under_way_and_is_another_epoch() -> None:
    it = course()
    epoch = it.epoch
    it.serve()
    it.prepare(a_round(it))
    it.announce(a_commit(it), (7, 1.0))
    it.go_back(1, ("c", "d"))
    assert (it.epoch, it.version, it.digests) == (epoch + 1, 1, ("c", "d"))
    assert (it.commit, it.round, it.update) == (None, None, (-1, 0.0))


def test_a_stop_makes_the_next_version_the_last() -> None:
    it = course()
    it.stop()
    it.stop_after_this_step()
    assert (it.is_stopping, it.last_version, it.is_last_version) == (True, START + 1, False)


def test_only_a_course_writes_its_fields() -> None:
    fields = set(vars(course()))
    folder = Path(scheduler_trainer.__file__).parent
    for file in folder.rglob("*.py"):
        owners = {"run", "self"} if file.name == "run.py" else {"run"}
        if file != Path(course_module.__file__):
            for owner, name in written(ast.parse(file.read_text())):
                assert owner not in owners or name not in fields, f"{file} writes run.{name}"


def written(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the owner's name and the field's, of whatever is assigned to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield ast.unparse(node.value).split(".")[-1].lstrip("_"), node.attr


def test_what_is_written_is_found() -> None:
    code = "self._run.version += 1\nrun.phase, x = 1, 2\nself.round = None\nrun.epoch == 3"
    assert list(written(ast.parse(code))) == [
        ("run", "version"),
        ("self", "round"),
        ("run", "phase"),
    ]
