"""Emulated devices, and the measurement of a pipeline of them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmrt.cli.app import app
from swarmrt.errors import UsageError
from swarmrt.lab.bench.emulation import Pace, Speed, parse_speed
from swarmrt.lab.bench.pipeline import SETTINGS, Setting, max_flow, measure


def test_the_ideal_is_what_the_narrowest_stage_lets_through() -> None:
    fast, slow = Speed(0.01, 0.03), Speed(0.04, 0.12)
    assert max_flow([[fast, slow]]) == pytest.approx(25 + 6.25)
    assert max_flow([[fast, slow], [slow, slow], [fast]]) == pytest.approx(12.5)


def test_every_setting_has_its_ideal() -> None:
    ideals = {name: round(setting.ideal_per_s) for name, setting in SETTINGS.items()}
    assert ideals == {
        "equal": 20,
        "spread": 25,
        "latency": 20,
        "far": 400,
        "far_15_ms": 133,
        "far_25_ms": 80,
    }


def test_a_sleep_that_was_too_long_is_taken_off_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds + 0.002

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", sleep)
    pace = Pace()
    for _ in range(100):
        pace.last(clock[0], 0.01)
    assert clock[0] - 100 == pytest.approx(1.0, abs=0.003)


@pytest.mark.parametrize("text", ["", "0.1", "a,b", "0,0", "-1,2", "nan,1", "1,2,3", "inf,1"])
def test_a_speed_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--emulate"):
        parse_speed(text)


def test_a_speed_is_read_as_it_is_written() -> None:
    assert parse_speed(str(Speed(0.1 / 3, 0.2 / 3))) == Speed(0.1 / 3, 0.2 / 3)


def test_an_unknown_setting_is_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "pipeline", "--emulate", "nowhere"])
    assert isinstance(result.exception, UsageError)
    assert "spread" in str(result.exception)


def test_a_pipeline_is_measured(tmp_path: Path) -> None:
    """Real processes, with emulated computing and distance; nothing has to be done again."""
    speeds = ((Speed(0.002, 0.004),), (Speed(0.002, 0.004),))
    result = measure(Setting("tiny", speeds, 0.01, microbatches=8, steps=2), tmp_path)
    assert json.loads(json.dumps(result)) == result
    reached, seconds = result["microbatches_per_s"], result["seconds"]
    assert isinstance(reached, float) and isinstance(seconds, float)
    assert reached * seconds == pytest.approx(16)
    assert result["over_ideal"] == pytest.approx(reached * 0.006)
    assert result["recoveries"] == {}
