"""Traces: what is read, what is refused, and what is made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swarmrt.errors import DataError
from swarmrt.sim.fluid import churn
from swarmrt.sim.fluid.trace import Change, read_trace, write_trace

TRACES = sorted((Path(__file__).parents[3] / "examples" / "traces").glob("*.csv"))
MADE = [churn.poisson, churn.diurnal, churn.heavy_tailed, churn.mass_events]
HOUR = 3600.0
Made = Callable[[int, float, float, int], tuple[Change, ...]]


def test_a_trace_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("time_ms,event,name\n0,add,a\n1500, remove ,a\n1500,add,a\n")
    assert read_trace(path) == (
        Change(0.0, True, "a"),
        Change(1.5, False, "a"),
        Change(1.5, True, "a"),
    )


BAD = {
    "a word": ("0,joins,a\n", "line 1: '0,joins,a' is not time_ms,add|remove,name"),
    "a time": ("-5,add,a\n", "line 1: '-5' is no time in milliseconds"),
    "the order": ("5,add,a\n4,add,b\n", "line 2: is earlier than the line before it"),
    "twice": ("0,add,a\n1,add,a\n", "line 2: a joins, but is there already"),
    "unknown": ("0,add,a\n1,remove,b\n", "line 2: b leaves without a join"),
    "nobody": ("", "nobody joins"),
    "far": ("999999999999999,add,a\n", "more than ten years"),
    "an escape": ("0,add,a\n1,remove,\x1b[2J\n", r"line 2: \x1b[2J leaves without a join"),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_a_bad_trace_gets_a_sentence(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_trace(path)
    assert expected in str(caught.value)


def test_a_missing_trace_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is no CSV file"):
        read_trace(tmp_path / "bytes.csv")


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_traces_that_are_shipped_are_read(path: Path) -> None:
    assert len(read_trace(path)) > 100


def test_there_are_shipped_traces() -> None:
    assert {path.stem for path in TRACES} >= {"p3-spot", "diurnal", "mass", "heavy-tailed"}


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.__name__)
def test_made_up_churn_is_a_trace(tmp_path: Path, made: Made) -> None:
    changes = made(20, HOUR, 24 * HOUR, 7)
    assert changes == made(20, HOUR, 24 * HOUR, 7)
    assert changes != made(20, HOUR, 24 * HOUR, 8)
    path = tmp_path / "made.csv"
    write_trace(changes, path)
    assert len(read_trace(path)) == len(changes)
    assert sum(change.joins and change.at_s == 0 for change in changes) == 20
    assert all(change.at_s < 24 * HOUR for change in changes)


def mean_peers(changes: tuple[Change, ...], length_s: float) -> float:
    lived = sum((length_s - c.at_s) * (1 if c.joins else -1) for c in changes)
    return lived / length_s


@pytest.mark.parametrize("made", [churn.poisson, churn.diurnal])
def test_made_up_churn_has_its_mean(made: Made) -> None:
    changes = made(50, HOUR, 240 * HOUR, 3)
    assert abs(mean_peers(changes, 240 * HOUR) - 50) < 5


def test_mass_events_take_a_part_at_once() -> None:
    changes = churn.mass_events(30, HOUR, 24 * HOUR, 1)
    at_once: dict[float, int] = {}
    for change in changes:
        if not change.joins:
            at_once[change.at_s] = at_once.get(change.at_s, 0) + 1
    assert sum(count >= 5 for count in at_once.values()) >= 5
