"""Docstrings are whole sentences that say what a thing is, or what it does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLACES = ("swarmrt/**/*.py", "scheduler/*.py", "scheduler/peer/**/*.py")
FILES = sorted({file for place in PLACES for file in ROOT.glob(place)})
REFUSED = frozenset(  # first words of fragments, and of sentences whose subject is elsewhere
    """
    After Another Anybody Anything As At Before Being Both But By Does Else Everybody Everything
    For From Further He Here His How If In Inside Into It Its More Nobody None Not Nothing Of On
    Once One Only Other Others Ours Over Raises Same Seconds She So Some Somebody Something Such
    That Their Them There These They This Those Through To Until We What Whatever When Where
    Whether Which While Who Whoever Whole Whom Whose Why With Without You
    """.split()
)


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """Yield where each docstring stands, and its text. Those of `__init__` are about arguments."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    pending: list[tuple[str, ast.AST]] = [(str(file.relative_to(ROOT)), module)]
    while pending:
        where, node = pending.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text is not None and not where.endswith(":__init__"):
                yield where, text
            for child in node.body:
                pending.append((f"{where}:{getattr(child, 'name', '')}", child))


def fault_of(text: str) -> str | None:
    """Return what is wrong with a docstring, if anything is."""
    first = text.split()[0]
    if not first[0].isupper():
        return f"begins with {first!r}, which is no capitalised word"
    if first.rstrip(".,:;") in REFUSED or text.startswith("The same"):
        return f"begins with {first!r}: begin with a verb, or with a noun and its article"
    if not text.split("\n\n")[0].endswith(".") and not text.endswith("."):
        return "does not end with a full stop"
    return None


@pytest.mark.parametrize(
    ("text", "is_fine"),
    [
        ("Return the step, in seconds.", True),
        ("The ledger of one step.", True),
        ("Whether it is over.", False),
        ("The same, of a peer.", False),
        ("Seconds since 1970.", False),
        ("`now` in seconds.", False),
        ("Return the step", False),
    ],
)
def test_fragments_are_found(text: str, is_fine: bool) -> None:
    assert (fault_of(text) is None) == is_fine


def test_docstrings_are_whole_sentences() -> None:
    found = [found for file in FILES for found in docstrings(file)]
    assert len(found) > 1000, "they were not found"
    faults = [f"{where}: {fault}" for where, text in found if (fault := fault_of(text))]
    assert not faults, "\n".join(faults)
