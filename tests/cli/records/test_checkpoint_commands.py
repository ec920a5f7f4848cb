"""`swarmrt checkpoint list` and `verify`: what a run's folder holds, and whether it can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from swarmrt.cli.app import app
from swarmrt.config_toml import parse_config
from swarmrt.model.stage import Stage
from swarmrt.runtime.state.snapshot import write_snapshot
from tests.runtime.checkpoints.test_checkpoint import spoil, write

SETTINGS: dict[str, Any] = {
    "model": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "sequence": 16},
    "stages": {"layers": [1]},
}


def swarmrt(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["checkpoint", *map(str, arguments)])


def save(run_dir: Path, version: int, **settings: Any) -> Path:
    """Write a checkpoint of such a model; return its folder."""
    config = parse_config(SETTINGS, "the test")
    stage = Stage(config, 0)
    data = write_snapshot(0, version, stage.live_state())
    what = {"config": config.model_dump(mode="json"), "parameters": stage.digest()} | settings
    return write(run_dir, version, data=data, **what).path


def test_all_are_listed_and_what_cannot_be_used_with_the_reason(tmp_path: Path) -> None:
    first, second = save(tmp_path, 5), save(tmp_path, 10, epoch=2)
    spoil(second / "stage-0.safetensors", "torn")
    listed = swarmrt("list", tmp_path)
    assert listed.exit_code == 0
    heading, row, spoilt = listed.stdout.splitlines()
    assert heading.split() == ["step", "epoch", "written", "bytes", "stages"]
    size_bytes = (first / "stage-0.safetensors").stat().st_size
    step, epoch, _, _, size, stages = row.split()
    assert (step, epoch, size, stages) == ("5", "1", f"{size_bytes:,}", "1")
    assert spoilt.split()[0] == "10" and "stage-0.safetensors: torn" in spoilt
    one, other = json.loads(swarmrt("list", tmp_path, "--json").stdout)
    assert (one["version"], one["epoch"], one["bytes"], one["stages"]) == (5, 1, size_bytes, 1)
    assert one["path"] == str(first) and abs(one["written"] - first.stat().st_mtime) < 60
    assert other["version"] == 10 and "torn" in other["problem"]


def test_whole_ones_are_said_to_be_whole(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    verified = swarmrt("verify", tmp_path)
    assert verified.exit_code == 0
    assert [line.partition(":")[0] for line in verified.stdout.splitlines()] == [
        "step 5",
        "step 10",
    ]
    assert verified.stdout.count("whole") == 2
    assert swarmrt("verify", tmp_path, "--version", 5).stdout.startswith("step 5: whole")


@pytest.mark.parametrize(
    ("file", "how", "expected"),
    [
        ("stage-0.safetensors", "torn", "stage-0.safetensors: torn"),
        ("stage-0.safetensors", "altered", "stage-0.safetensors: corrupted"),
        ("stage-0.safetensors", "gone", "stage-0.safetensors: cannot be read"),
        ("manifest.json", "torn", "manifest.json: corrupted"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, file: str, how: str, expected: str) -> None:
    save(tmp_path, 5)
    spoil(save(tmp_path, 10) / file, how)
    verified = swarmrt("verify", tmp_path)
    assert verified.exit_code == 1
    whole, spoilt = verified.stdout.splitlines()
    assert whole.startswith("step 5: whole") and expected in spoilt
    assert swarmrt("verify", tmp_path, "--version", 5).exit_code == 0
    assert swarmrt("verify", tmp_path, "--version", 10).exit_code == 1


def test_what_is_not_as_the_runs_layout_says_is_named(tmp_path: Path) -> None:
    wider = SETTINGS | {"model": SETTINGS["model"] | {"width": 48}}
    save(tmp_path, 5, config=parse_config(wider, "the test").model_dump(mode="json"))
    save(tmp_path, 10, parameters="0" * 32)
    verified = swarmrt("verify", tmp_path)
    assert verified.exit_code == 1
    other_shapes, other_values = verified.stdout.splitlines()
    assert "stage-0.safetensors has not the tensor" in other_shapes
    assert "stage-0.safetensors holds other parameters" in other_values


def test_a_builder_is_not_run_unless_it_is_allowed(tmp_path: Path) -> None:
    config = parse_config(SETTINGS, "the test").model_dump(mode="json")
    config["model"]["kind"] = "no_such_module:build"
    save(tmp_path, 5, config=config)
    verified = swarmrt("verify", tmp_path)
    assert verified.exit_code == 0
    assert "--allow-model no_such_module:build" in verified.stdout
    refused = swarmrt("verify", tmp_path, "--allow-model", "no_such_module:build")
    assert "cannot import no_such_module" in str(refused.exception)


def test_folders_and_versions_that_are_not_there(tmp_path: Path) -> None:
    for command in ("list", "verify"):
        assert "no such run folder" in str(swarmrt(command, tmp_path / "none").exception)
        assert "no checkpoint yet" in str(swarmrt(command, tmp_path).exception)
    save(tmp_path, 5)
    refused = swarmrt("verify", tmp_path, "--version", 7)
    assert "no checkpoint of step 7" in str(refused.exception)
