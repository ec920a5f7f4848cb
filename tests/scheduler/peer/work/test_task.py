"""A task is a machine: its table is the one that its file shows, and it alone writes its fields."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmrt.scheduler.peer.work import task as machine
from swarmrt.scheduler.peer.work.task import KINDS, NEXT, Kind, Status, Task
from tests.scheduler.peer_core import MB

PEER = Path(machine.__file__).parent.parent
FIELDS = {field.name for field in dataclasses.fields(Task)}
CHANGES = {"add", "append", "clear", "discard", "pop", "popitem", "remove", "setdefault", "update"}


def table() -> dict[tuple[str, Status], Status]:
    """Return the table in the docstring."""
    lines = (machine.__doc__ or "").splitlines()
    begins = next(place for place, line in enumerate(lines) if line.split()[:1] == ["AWAITED"])
    before = [Status(word.lower()) for word in lines[begins].split()]
    found = {}
    for line in lines[begins + 1 : begins + 1 + len(NEXT)]:
        happening, cells = line[4:17].strip(), line[17:].split()
        for status, cell in zip(before, cells, strict=False):
            if cell != "-":
                found[happening, status] = Status(cell.lower())
    return found


def test_the_table_is_the_one_that_is_shown() -> None:
    assert table() == {
        (happening, before): after
        for happening, row in NEXT.items()
        for before, after in row.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_place_in_the_table_is_an_error(kind: Kind) -> None:
    for happening, row in NEXT.items():
        for before in Status:
            task = Task(MB)
            setattr(task, kind, before)
            if before in row:
                task.move(kind, happening)
                assert getattr(task, kind) is row[before]
            else:
                with pytest.raises(KeyError):
                    task.move(kind, happening)


def written_elsewhere(file: Path) -> list[str]:
    """Return where a file writes a field of some task, or changes what is in one."""
    found = []
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    for node in (node for node in nodes if isinstance(node, (ast.stmt, ast.expr))):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        elif isinstance(node, ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            targets = [node.func.value] if node.func.attr in CHANGES else []
        found += [f"{file.name}:{node.lineno}" for target in targets for _ in fields_of(target)]
    return found


def fields_of(target: ast.expr) -> Iterator[str]:
    """Yield the fields of tasks among what is written."""
    if isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from fields_of(element)
    elif isinstance(target, ast.Subscript):
        yield from fields_of(target.value)
    elif isinstance(target, ast.Attribute) and target.attr in FIELDS and is_task(target.value):
        yield target.attr


def is_task(value: ast.expr) -> bool:
    """Return whether an expression may be a task. Parts of a core write their own."""
    return not isinstance(value, ast.Name) or value.id not in {"self", "seat"}


def test_nobody_else_writes_its_fields() -> None:
    files = [file for file in PEER.rglob("*.py") if file.name != "task.py"]
    assert len(files) > 20
    assert not [where for file in files for where in written_elsewhere(file)]
