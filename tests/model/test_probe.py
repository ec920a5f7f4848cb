"""Odd models through a cut, against themselves in one piece."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.data import open_data
from swarmrt.errors import ModelError
from swarmrt.model.partition import resolve
from swarmrt.model.probe import probe
from swarmrt.model.sizing import footprint
from swarmrt.runtime.trainer.trial import try_model
from tests.model import odd_models
from tests.model.odd_models import BAD, GOOD
from tests.processes import swarmrt


def run(builder: Callable[[], Any], stages: int = 3, **model: Any) -> RunConfig:
    kind = f"{odd_models.__name__}:{builder.__name__}"
    config = {
        "model": {"kind": kind, "sequence": 6, **model},
        "stages": {"count": stages},
        "batch": {"microbatch": 2},
    }
    return resolve(parse_config(config, "test"))


def tried(config: RunConfig) -> list[str]:
    torch.manual_seed(0)
    inputs, targets = torch.randint(0, 256, (2, 2, 6))
    inputs[0, 0] = 255
    return probe(config, inputs, targets)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("builder", GOOD)
def test_model_that_can_be_cut_behaves_as_it_does_alone(
    builder: Callable[[], Any], recompute: bool
) -> None:
    config = run(builder, recompute=recompute)
    assert sum(footprint(config, stage).parameters for stage in range(3)) > 0
    notes = tried(config)
    assert bool(notes) == (builder is odd_models.detached), notes


@pytest.mark.parametrize("builder", BAD)
def test_model_that_cannot_be_cut_is_told_why(builder: Callable[[], Any]) -> None:
    with pytest.raises(ModelError, match=BAD[builder]) as caught:
        tried(run(builder))
    assert "\n" not in str(caught.value) and odd_models.__name__ in str(caught.value)


@pytest.mark.parametrize("builder", [odd_models.on_cuda, odd_models.backward_on_cuda])
def test_model_that_computes_elsewhere_is_not_tried_and_goes_on(
    tmp_path: Path, builder: Callable[[], Any]
) -> None:
    """There is no GPU here. What it costs cannot be measured either, so it is cut by hand."""
    if torch.cuda.is_available():
        pytest.skip("it is tried where there is one")
    (tmp_path / "text.txt").write_text("plain words " * 400)
    kind = f"{odd_models.__name__}:{builder.__name__}"
    sections = {
        "model": {"kind": kind, "sequence": 6},
        "data": {"source": str(tmp_path / "text.txt")},
        "batch": {"microbatch": 2},
    }
    config = parse_config({**sections, "stages": {"layers": [1, 1, 1]}}, "test")
    trial = try_model(resolve(config), open_data(config))
    assert not trial.was_made
    assert trial.notes[0].startswith("the cut is not tried: the model computes on no CPU, and")
    by_cost = parse_config({**sections, "stages": {"count": 3}}, "test")
    with pytest.raises(ModelError, match=r"say in stages\.layers how many of its 3 layers"):
        resolve(by_cost)


def test_model_that_fails_anywhere_is_an_error() -> None:
    kind = f"{odd_models.__name__}:no_way_back"
    by_hand = {"model": {"kind": kind, "sequence": 6}, "stages": {"layers": [1, 2, 1]}}
    with pytest.raises(ModelError, match="the gradient cannot be computed: ValueError: no way"):
        tried(resolve(parse_config(by_hand, "test")))
    with pytest.raises(ModelError, match="layer 1 cannot compute .*: ValueError: no way"):
        run(odd_models.no_way_back)


def test_frozen_layers_lie_with_trained_ones() -> None:
    cut = run(odd_models.frozen).stages.layers
    assert cut is not None and sum(cut) == 7 and cut[1] >= 1


def test_more_stages_than_trained_layers_are_refused() -> None:
    with pytest.raises(ModelError, match="4 stages need .* the model has 3, and 4 with nothing"):
        run(odd_models.frozen, stages=4)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_dtypes_are_compared_as_exactly_as_they_are(dtype: str) -> None:
    assert tried(run(odd_models.batch_second, dtype=dtype)) == []


def test_check_says_what_a_run_is_or_why_it_cannot_be(tmp_path: Path) -> None:
    """The text has one typographic quote, whose bytes are beyond the embedding's rows."""
    (tmp_path / "text.txt").write_text("plain words " * 400 + "\u201d", encoding="utf-8")
    run_file = tmp_path / "run.toml"
    settings = ["model.sequence=6", "stages.count=3", f"data.source={tmp_path / 'text.txt'}"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    run_file.write_text('[model]\nkind = "tests.model.odd_models:small_vocabulary"\n')
    refused = swarmrt("check", run_file, *overrides)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert "largest token is 226" in refused.stderr
    run_file.write_text('[model]\nkind = "tests.model.odd_models:frozen"\n')
    checked = swarmrt("check", run_file, *overrides)
    assert checked.returncode == 0, checked.stderr
    assert "7 layers in 3 stages" in checked.stdout and "one piece" in checked.stdout


def test_cut_that_has_no_room_to_be_tried_is_not_said_to_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text("plain words " * 400)
    config = run(odd_models.frozen)
    source = config.data.model_copy(update={"source": str(tmp_path / "text.txt")})
    data = open_data(config.model_copy(update={"data": source}))
    assert try_model(config, data).was_made
    monkeypatch.setattr("swarmrt.runtime.trainer.trial.SHARE", 1e-9)
    trial = try_model(config, data)
    assert not trial.was_made and "is not tried" in trial.notes[0]
