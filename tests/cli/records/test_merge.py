"""`swarmrt merge`: runs' folders in, one file out, or a reason."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from swarmrt.cli.app import app
from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.data import open_data
from swarmrt.errors import UsageError
from swarmrt.ids import MicrobatchId
from swarmrt.model.reference import train_reference
from swarmrt.model.stage import Stage
from swarmrt.run_identity import fingerprint, pinned
from swarmrt.runtime.checkpoints.draft import Draft, describe_file
from swarmrt.runtime.state.snapshot import Snapshot, digest_of, write_snapshot
from tests.runtime.checkpoints.test_checkpoint import spoil

SENTENCES = "".join(f"{i} is half of {2 * i}, and {i * i} its square.\n" for i in range(400))
UNSEEN = "".join(f"{i} is half of {2 * i}, and {i * i} its square.\n" for i in range(400, 600))


def swarmrt(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def merge(*arguments: object) -> Result:
    result = swarmrt("merge", *arguments)
    assert result.exit_code == 0, result.exception
    return result


def refused(*arguments: object) -> str:
    """Run it with bad input; return the error."""
    error = swarmrt("merge", *arguments).exception
    assert isinstance(error, UsageError)
    return str(error)


def configured(folder: Path, **sections: Mapping[str, Any]) -> RunConfig:
    (folder / "text.txt").write_text(SENTENCES)
    settings: dict[str, dict[str, Any]] = {
        "model": {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "sequence": 32},
        "stages": {"layers": [1, 1]},
        "data": {"source": str(folder / "text.txt")},
        "batch": {"microbatch": 4, "microbatches": 2},
    }
    for section, values in sections.items():
        settings[section] = settings.get(section, {}) | dict(values)
    config = parse_config(settings, "the test")
    return pinned(config, None, open_data(config).fingerprint)


def finished(
    run_dir: Path, config: RunConfig, step: int, weights: Mapping[str, Tensor] | None = None
) -> Path:
    """Write the checkpoint of a run that has come to these weights; by default the first ones."""
    draft, files = Draft(run_dir, step), []
    for index in range(config.num_stages):
        stage = Stage(config, index)
        live = stage.live_state()
        with torch.no_grad():
            for name, values in (weights or {}).items():
                if (there := live.get(f"model.{name}")) is not None:
                    there.copy_(values)
        data = write_snapshot(index, step, live)
        draft.file_of(index).write_bytes(data)
        files.append(describe_file(Snapshot(index, step, data, digest_of(data)), stage.digest()))
    manifest = {
        "run": "r",
        "epoch": 1,
        "version": step,
        "seed": config.run.seed,
        "fingerprint": fingerprint(config),
        "config": config.model_dump(mode="json"),
    }
    draft.finish(manifest, files, 2)
    return run_dir


def weights_of(run_dir: Path) -> dict[str, Tensor]:
    out = run_dir.with_suffix(".export.safetensors")
    assert swarmrt("export", run_dir, "--out", out).exit_code == 0
    return safetensors.torch.load_file(out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of one start: a few steps, and more with another cut and learning rate; and one with
    random weights instead."""
    folder = tmp_path_factory.mktemp("runs")
    short = configured(folder)
    long = configured(folder, stages={"layers": [2]}, optimizer={"lr": 2e-3})
    trained = {"short": (short, 6), "long": (long, 12)}
    found = {
        name: finished(folder / name, config, steps, train_reference(config, steps))
        for name, (config, steps) in trained.items()
    }
    draws = torch.Generator().manual_seed(0)
    random = {
        name: torch.randn(values.shape, generator=draws)
        for name, values in weights_of(found["long"]).items()
    }
    found["random"] = finished(folder / "random", long, 12, random)
    return found


def test_a_run_with_itself_is_its_export(runs: dict[str, Path], tmp_path: Path) -> None:
    """The file is the same to the byte, so it loads wherever an export does."""
    one, merged = tmp_path / "one.safetensors", tmp_path / "merged.safetensors"
    assert swarmrt("export", runs["long"], "--out", one).exit_code == 0
    merge(runs["long"], runs["long"], "--out", merged, "--hf", tmp_path / "hf")
    assert merged.read_bytes() == one.read_bytes()
    assert {path.name for path in (tmp_path / "hf").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"hf", one.name, merged.name}


@pytest.mark.parametrize(
    ("options", "share"), [([], 2 / 3), (["--equal"], 1 / 2), (["--weights", "3,1"], 1 / 4)]
)
def test_weights_are_the_samples_unless_others_are_given(
    runs: dict[str, Path], tmp_path: Path, options: list[str], share: float
) -> None:
    out = tmp_path / "merged.safetensors"
    said = merge(runs["short"], runs["long"], "--out", out, "--json", *options)
    short, long = json.loads(said.stdout.splitlines()[-1])["runs"]
    assert (short["step"], short["samples"]) == (6, 48)
    assert (long["step"], long["samples"]) == (12, 96)
    assert long["share"] == pytest.approx(share)
    found = safetensors.torch.load_file(out)
    one, other = weights_of(runs["short"]), weights_of(runs["long"])
    assert found.keys() == one.keys()
    for name, values in found.items():
        torch.testing.assert_close(values, torch.lerp(one[name], other[name], share))


def test_a_run_that_makes_it_worse_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    text, out = tmp_path / "unseen.txt", tmp_path / "merged.safetensors"
    text.write_text(UNSEEN)
    dirs = [runs["random"], runs["long"], runs["long"]]
    said = merge(*dirs, "--out", out, "--validate", text)
    _, _, first, second, random, wrote = said.stdout.splitlines()
    assert [line.split()[0] for line in (first, second, random)] == [str(d) for d in dirs[::-1]]
    assert "refused" not in first + second
    assert "refused: the merge would be worse by" in random
    assert "2 of 3 runs" in wrote
    found, long = safetensors.torch.load_file(out), weights_of(runs["long"])
    assert all(torch.equal(values, long[name]) for name, values in found.items())
    alone = merge(*dirs[:2], "--out", out, "--validate", text)
    assert f"the weights of {runs['long']} alone" in alone.stdout


def test_the_text_of_a_run_is_judged_by_what_it_held_out(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """The loss is that of the run's own held-out windows; of a text that no run has seen nearly all
    windows are looked at."""
    config = configured(runs["long"].parent)
    text, out = tmp_path / "unseen.txt", tmp_path / "merged.safetensors"
    text.write_text(UNSEEN)
    both = (runs["long"], runs["long"], "--out", out, "--json", "--validate")
    own = merge(*both, config.data.source)
    held_out = len(open_data(config).held_out) // 4 * 4
    assert f"looking at {held_out} sequences" in own.stderr
    unseen = re.search(r"looking at (\d+) sequences", merge(*both, text).stderr)
    windows = len(UNSEEN.encode()) // 33
    assert unseen is not None and 0.95 * windows < int(unseen[1]) < windows
    assert "looking at 8 sequences" in merge(*both, text, "--sequences", 10).stderr
    row, _ = json.loads(own.stdout.splitlines()[-1])["runs"]
    assert row["loss"] == pytest.approx(held_out_loss(config, weights_of(runs["long"])), rel=1e-5)


def held_out_loss(config: RunConfig, weights: dict[str, Tensor]) -> float:
    """Return it as the run's own evaluation computes it, stage by stage."""
    stages = [Stage(config, index) for index in range(config.num_stages)]
    for stage in stages:
        live = stage.live_state()
        with torch.no_grad():
            for name in live.keys() & {f"model.{name}" for name in weights}:
                live[name].copy_(weights[name.removeprefix("model.")])
    data, total, tokens = open_data(config), 0.0, 0
    for index in range(len(data.held_out) // 4):
        microbatch = MicrobatchId(0, index, held_out=True)
        inputs, targets = map(torch.from_numpy, data.microbatch(microbatch))
        passed = stages[0].forward(microbatch, inputs, None)
        assert passed.output is not None
        loss_sum = stages[1].forward(microbatch, passed.output, targets).loss_sum
        assert loss_sum is not None
        total, tokens = total + loss_sum, tokens + targets.numel()
    return total / tokens


def test_runs_of_other_starts_need_a_text(runs: dict[str, Path], tmp_path: Path) -> None:
    text, out = tmp_path / "unseen.txt", tmp_path / "merged.safetensors"
    text.write_text(UNSEEN)
    other = finished(tmp_path / "other", configured(tmp_path, run={"seed": 1}), 12)
    said = refused(runs["long"], other, "--out", out)
    assert f"{other} has another start than {runs['long']}: run.seed is 1" in said
    assert "--validate" in said and not out.exists()
    judged = merge(runs["long"], other, "--out", out, "--validate", text)
    assert "note:" in judged.stdout and "refused" in judged.stdout


def test_bad_input_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    one, other = runs["short"], runs["long"]
    assert "two run folders at least" in refused(one, "--out", out)
    assert "--out FILE.safetensors or --hf DIR" in refused(one, other)
    assert "no such run folder" in refused(one, tmp_path / "none", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "no checkpoint yet" in refused(one, tmp_path / "empty", "--out", out)
    for weights, expected in {
        "1": "has 1 numbers for 2 runs",
        "1,x": "write numbers",
        "1,0": "above 0",
        "1,nan": "above 0",
        "1,inf": "above 0",
    }.items():
        assert expected in refused(one, other, "--out", out, "--weights", weights)
    assert "exclude each other" in refused(one, other, "--out", out, "--equal", "--weights", "1,1")
    untrained = finished(tmp_path / "untrained", configured(tmp_path), 0)
    assert "step 0" in refused(one, untrained, "--out", out)
    wider = finished(tmp_path / "wider", configured(tmp_path, model={"width": 48}), 12)
    assert "model.width is 48, and 32 there" in refused(one, wider, "--out", out)
    assert "no such file" in refused(one, other, "--out", out, "--validate", tmp_path / "no.txt")
    damaged = finished(tmp_path / "damaged", configured(tmp_path), 12)
    spoil(next(damaged.glob("checkpoints/*/stage-1.safetensors")), "altered")
    assert "stage-1.safetensors: corrupted" in refused(one, damaged, "--out", out)
    assert not out.exists()
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(one, other, "--out", tmp_path / "file" / "x")


def test_unlike_shares_of_one_text_are_refused(tmp_path: Path) -> None:
    """What one has held out the other may have been trained on."""
    more = configured(tmp_path, data={"held_out": 0.2})
    one = finished(tmp_path / "one", configured(tmp_path), 5)
    other = finished(tmp_path / "other", more, 5)
    said = refused(one, other, "--out", tmp_path / "x", "--validate", more.data.source)
    assert "data.held_out 0.05, 0.2" in said


def test_a_builder_runs_only_where_a_text_is_judged_and_it_is_allowed(tmp_path: Path) -> None:
    config = configured(tmp_path)
    model = config.model.model_copy(update={"kind": "no_such_module:build"})
    one = finished(tmp_path / "one", config, 5)
    for manifest in one.glob("checkpoints/*/manifest.json"):
        its = json.loads(manifest.read_text())
        its["config"]["model"] = model.model_dump(mode="json")
        manifest.write_text(json.dumps(its | {"fingerprint": ""}))
    out, text = tmp_path / "merged.safetensors", config.data.source
    merge(one, one, "--out", out)
    said = refused(one, one, "--out", out, "--validate", text)
    assert "pass --allow-model no_such_module:build" in said
    allowed = refused(
        one, one, "--out", out, "--validate", text, "--allow-model", "no_such_module:build"
    )
    assert "cannot import no_such_module" in allowed
