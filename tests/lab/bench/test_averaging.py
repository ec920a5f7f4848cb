"""The figures of ways of making versions that are measured beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from swarmrt.cli.app import app
from swarmrt.errors import UsageError
from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.lab.bench.averaging import STRATEGIES, late_fraction, longest_pause_s
from swarmrt.lab.bench.emulation import tiny_model
from swarmrt.messages import Prepare
from swarmrt.scheduler.events import BackwardDone, Event, Received, Stepped
from swarmrt.scheduler.recording import Record

MB = MicrobatchId(0, 0)
PREPARE = Received(PeerId("QmTrainer"), Prepare(1, 0, 0, (), (), 1))


def pause(*events: tuple[float, Event], first: int = 0, last: int = 9) -> float:
    return longest_pause_s((Record(now, event, []) for now, event in events), first, last)


def done(now: float) -> tuple[float, Event]:
    """Return a computation that has taken a tenth of a second."""
    return now, BackwardDone(MB, 0.1, 0)


def test_pause_is_what_was_not_computed_while_a_round_was_under_way() -> None:
    story = [done(1.0), (1.1, PREPARE), done(1.3), (1.9, Stepped(1, "")), done(2.3)]
    assert pause(*story) == pytest.approx(0.9)
    assert pause(*story, last=1) == pytest.approx(0.2), "the long one ended with the version"
    assert pause(*story, first=2) == 0


def test_standing_still_without_a_round_is_no_pause_of_one() -> None:
    assert pause(done(1.0), done(5.0), (5.1, PREPARE)) == 0


def test_late_fraction_is_of_all_stages_in_the_steps_that_are_measured(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    works = [{"steps": 3, "late": 0.1, "drift": 1.0}, {"steps": 1, "late": 0.5, "drift": 1.0}]
    early = [{"steps": 3, "late": 0.9, "drift": 1.0}]
    lines: list[dict[str, object]] = [
        {"version": 2, "local": early},
        {"version": 3, "local": works},
    ]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"version": 4}]))
    assert late_fraction(metrics, after=2) == pytest.approx(0.3)
    metrics.write_text('{"version": 1}\n')
    assert late_fraction(metrics) == 0


def test_every_strategy_has_the_same_devices_and_links() -> None:
    assert {(s.speeds, s.link_rate, s.link_delay_s) for s in STRATEGIES.values()} == {
        (STRATEGIES["sync"].speeds, "50mbit", 0.1)
    }
    assert round(STRATEGIES["async"].ideal_per_s) == 20


def test_idle_parameters_are_in_every_layer_and_compute_nothing() -> None:
    (with_idle, *_), _ = tiny_model(3, 16, 4, idle=100)
    layer = with_idle()
    layer(torch.tensor([[1, 2]])).sum().backward()
    gradients = {p.numel(): p.grad for p in layer.parameters()}
    assert gradients[16 * 4] is not None and gradients[100] is None


def test_unknown_strategy_is_refused() -> None:
    arguments = ["bench", "pipeline", "--emulate", "averaging", "--strategies", "sync,psync"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UsageError)
    assert "staleness" in str(result.exception)
