"""Checkpoints on disk: whole or absent, whenever their writer is killed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from swarmrt.config_toml import parse_config
from swarmrt.errors import CheckpointError
from swarmrt.run_identity import fingerprint, pinned
from swarmrt.runtime.checkpoints.checkpoint import (
    Checkpoint,
    checkpoint_of,
    checkpoints_in,
    has_begun,
    newest_checkpoint,
)
from swarmrt.runtime.checkpoints.draft import Draft, describe_file
from swarmrt.runtime.checkpoints.epochs import read_epoch, write_epoch
from swarmrt.runtime.state.snapshot import Snapshot, digest_of, read_snapshot, write_snapshot

CONFIG = parse_config({"model": {"layers": 1}, "stages": {"layers": [1]}}, "the test").model_dump(
    mode="json"
)


class Killed(Exception):
    """Stands for a SIGKILL at a failpoint."""


def write(
    run_dir: Path,
    version: int,
    fill: float = 1.0,
    die_at: str = "",
    epoch: int = 1,
    seed: int = 0,
    spoilt: str = "",
    data: memoryview | None = None,
    config: dict[str, Any] = CONFIG,
    parameters: str = "digest",
    its_fingerprint: str = "",
) -> Checkpoint:
    """Write a checkpoint with one value in one stage; the two newest are kept."""

    def passing(point: str) -> None:
        if point == die_at:
            raise Killed

    manifest: dict[str, Any] = {
        "run": "r",
        "epoch": epoch,
        "version": version,
        "seed": seed,
        "fingerprint": its_fingerprint,
        "config": config,
    }
    data = data or write_snapshot(0, version, {"values": torch.tensor([fill])})
    draft = Draft(run_dir, version)
    draft.file_of(0).write_bytes(data)
    files = [describe_file(Snapshot(0, version, data, digest_of(data)), parameters)]
    spoil(draft.file_of(0), spoilt)
    return draft.finish(manifest, files, 2, passing)


def fill_of(checkpoint: Checkpoint) -> float:
    return float(read_snapshot(checkpoint.read_stage(0), "it")["values"])


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in checkpoints_in(run_dir).iterdir())


def test_manifest_whose_configuration_is_another_runs_is_found_out(tmp_path: Path) -> None:
    config = pinned(parse_config(CONFIG, "test"), None, "0" * 32)
    plain = config.model_dump(mode="json")
    whole = write(tmp_path, 5, config=plain, its_fingerprint=fingerprint(config))
    assert whole.load()
    manifest = whole.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"lr": 0.003', '"lr": 0.3', 1))
    with pytest.raises(CheckpointError, match=r"manifest\.json: corrupted \(its configuration is"):
        newest_checkpoint(tmp_path)


def test_newest_ones_are_kept(tmp_path: Path) -> None:
    for version in (5, 10, 15):
        write(tmp_path, version)
    assert names(tmp_path) == ["step-000010", "step-000015"]
    assert newest_checkpoint(tmp_path).version == 15
    assert checkpoint_of(tmp_path, 10).version == 10
    with pytest.raises(CheckpointError, match="no checkpoint of step 5"):
        checkpoint_of(tmp_path, 5)


def test_numbers_of_any_length_are_in_their_order(tmp_path: Path) -> None:
    for version in range(999_998, 1_000_003):
        write(tmp_path, version)
        assert newest_checkpoint(tmp_path).version == version
    assert names(tmp_path) == ["step-1000001", "step-1000002"]


def test_folders_with_other_names_are_no_checkpoints(tmp_path: Path) -> None:
    write(tmp_path, 5)
    for name in ("step-000010-of-before", "step-x", "steps", "step-"):
        shutil.copytree(tmp_path / "checkpoints" / "step-000005", tmp_path / "checkpoints" / name)
    assert newest_checkpoint(tmp_path).version == 5
    for version in (6, 7):
        write(tmp_path, version)
    kept = ["step-", "step-000006", "step-000007", "step-000010-of-before", "step-x", "steps"]
    assert names(tmp_path) == kept


def test_writer_killed_before_the_end_leaves_the_earlier_one(tmp_path: Path) -> None:
    write(tmp_path, 5)
    with pytest.raises(Killed):
        write(tmp_path, 10, die_at="trainer.checkpoint.before_rename")
    assert newest_checkpoint(tmp_path).version == 5
    write(tmp_path, 15)
    assert names(tmp_path) == ["step-000005", "step-000015"], "nothing is left of the killed one"


def test_writer_killed_after_the_end_leaves_the_new_one(tmp_path: Path) -> None:
    write(tmp_path, 5)
    with pytest.raises(Killed):
        write(tmp_path, 10, die_at="trainer.checkpoint.after_rename")
    assert newest_checkpoint(tmp_path).version == 10


@pytest.mark.parametrize(
    ("point", "expected"),
    [("trainer.checkpoint.before_rename", 1.0), ("trainer.checkpoint.after_rename", 2.0)],
)
def test_version_that_is_written_again_is_never_missing(
    tmp_path: Path, point: str, expected: float
) -> None:
    """After a rollback a version comes again, with other low bits."""
    write(tmp_path, 5, 1.0)
    with pytest.raises(Killed):
        write(tmp_path, 5, 2.0, die_at=point, epoch=2)
    assert fill_of(newest_checkpoint(tmp_path)) == expected
    assert fill_of(checkpoint_of(tmp_path, 5)) == expected
    write(tmp_path, 5, 3.0, epoch=2)
    assert names(tmp_path) == ["step-000005"]
    assert fill_of(newest_checkpoint(tmp_path)) == 3.0


def test_altered_file_is_found_by_its_digest(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 5)
    file = checkpoint.path / "stage-0.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="corrupted"):
        newest_checkpoint(tmp_path).read_stage(0)


def test_epoch_is_written_down(tmp_path: Path) -> None:
    assert read_epoch(tmp_path) == 0 and not has_begun(tmp_path)
    write_epoch(tmp_path, 3)
    assert read_epoch(tmp_path) == 3 and has_begun(tmp_path)
    write(tmp_path, 5)
    assert not has_begun(tmp_path), "it has a checkpoint to go on from"
    (tmp_path / "trainer" / "epoch").write_text("three")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_epoch(tmp_path)


def test_a_checkpoint_of_the_first_format_is_read_without_its_digests(tmp_path: Path) -> None:
    path = write(tmp_path, 5).path / "manifest.json"
    assert newest_checkpoint(tmp_path).parameter_digests == ("digest",)
    text = path.read_text()
    path.write_text(text.replace('"format": 2', '"format": 1'))
    assert newest_checkpoint(tmp_path).parameter_digests == ()
    path.write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(CheckpointError, match="format 3, this swarmrt reads 2"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("file", ["../../secret", "/etc/passwd", "stage-0.safetensors/..", "s"])
def test_manifest_names_files_of_its_own_folder_alone(tmp_path: Path, file: str) -> None:
    manifest = write(tmp_path, 5).path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("stage-0.safetensors", file))
    with pytest.raises(CheckpointError, match=r"manifest\.json: corrupted"):
        newest_checkpoint(tmp_path)


def test_what_a_rollback_has_left_is_older_whatever_its_number(tmp_path: Path) -> None:
    write(tmp_path, 15)
    write(tmp_path, 20)
    write(tmp_path, 10, epoch=2)
    assert newest_checkpoint(tmp_path).version == 10
    assert names(tmp_path) == ["step-000010", "step-000020"]
    write(tmp_path, 15, epoch=2)
    assert newest_checkpoint(tmp_path).version == 15
    assert names(tmp_path) == ["step-000010", "step-000015"]


def test_what_is_newer_than_what_is_written_stays(tmp_path: Path) -> None:
    """A trainer that was left behind writes beside the one that goes on."""
    write(tmp_path, 20, epoch=3)
    write(tmp_path, 21, epoch=3)
    for version in (30, 31, 32):
        write(tmp_path, version, epoch=2)
    assert names(tmp_path) == ["step-000020", "step-000021", "step-000031", "step-000032"]
    assert newest_checkpoint(tmp_path).version == 21
    with pytest.raises(CheckpointError, match=r"step-000021: .*at epoch 3; this one is at epoch 2"):
        write(tmp_path, 21, 2.0, epoch=2)
    assert fill_of(checkpoint_of(tmp_path, 21)) == 1.0


def test_what_another_run_has_written_stays(tmp_path: Path) -> None:
    for version in (4, 8, 12):
        write(tmp_path, version, epoch=1)
    for version in (2, 6, 10):
        write(tmp_path, version, epoch=2, seed=99)
    assert names(tmp_path) == ["step-000006", "step-000008", "step-000010", "step-000012"]
    with pytest.raises(CheckpointError, match="step-000008: is another run.s"):
        write(tmp_path, 8, 2.0, epoch=2, seed=99)
    assert fill_of(checkpoint_of(tmp_path, 8)) == 1.0


def spoil(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    match how:
        case "torn":
            file.write_bytes(content[:-1])
        case "altered":
            content[-1] ^= 1
            file.write_bytes(content)
        case "gone":
            file.unlink()
        case "empty":
            file.write_bytes(b"")


SPOILT = {
    "torn": r"stage-0\.safetensors: torn",
    "altered": r"stage-0\.safetensors: corrupted",
    "empty": r"stage-0\.safetensors: torn",
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_cannot_be_read_again_is_no_checkpoint_and_the_older_ones_stay(
    tmp_path: Path, how: str
) -> None:
    """The disk has lost something before the checkpoint has its name."""
    write(tmp_path, 5)
    write(tmp_path, 10)
    with pytest.raises(CheckpointError, match=SPOILT[how]):
        write(tmp_path, 15, spoilt=how)
    assert names(tmp_path)[-2:] == ["step-000005", "step-000010"]
    assert newest_checkpoint(tmp_path).version == 10
    write(tmp_path, 15)
    assert names(tmp_path) == ["step-000010", "step-000015"]


def test_what_no_reader_takes_is_no_checkpoint(tmp_path: Path) -> None:
    """A file's digest may be right, and still nobody can load it."""
    write(tmp_path, 5)
    with pytest.raises(CheckpointError, match="is not a readable snapshot"):
        write(tmp_path, 10, data=memoryview(b"no tensors"))
    two = parse_config({"model": {"layers": 2}, "stages": {"layers": [1, 1]}}, "the test")
    with pytest.raises(CheckpointError, match="2 stages, files"):
        write(tmp_path, 10, config=two.model_dump(mode="json"))
    with pytest.raises(CheckpointError, match="layerz"):
        write(tmp_path, 10, config={"model": {"layerz": 1}})
    assert newest_checkpoint(tmp_path).version == 5


@pytest.mark.parametrize("how", ["torn", "gone"])
def test_a_torn_one_does_not_count_among_those_that_are_kept(tmp_path: Path, how: str) -> None:
    write(tmp_path, 5)
    spoil(write(tmp_path, 10).path / "stage-0.safetensors", how)
    write(tmp_path, 15)
    assert names(tmp_path) == ["step-000005", "step-000010", "step-000015"]
    write(tmp_path, 20)
    assert names(tmp_path) == ["step-000010", "step-000015", "step-000020"]


def test_a_spoilt_newest_one_is_told_with_the_older_one_that_can_be_used(tmp_path: Path) -> None:
    for version in (5, 10):
        write(tmp_path, version)
    stage = checkpoints_in(tmp_path) / "step-000010" / "stage-0.safetensors"
    whole = stage.read_bytes()
    for how in ("torn", "altered", "gone", "empty"):
        spoil(stage, how)
        with pytest.raises(CheckpointError) as refused:
            newest_checkpoint(tmp_path)
        told = str(refused.value)
        assert re.search(r"stage-0\.safetensors: (torn|corrupted|cannot be read)", told), told
        assert f"step 5 is whole: move {stage.parent} out of the way to use it" in told
        stage.write_bytes(whole)
    manifest = stage.with_name("manifest.json")
    text = manifest.read_text()
    for wrong in ("", "{", text.replace('"format": 2', '"format": 3')):
        manifest.write_text(wrong)
        with pytest.raises(CheckpointError, match=r"step 5 is whole: move .*step-000010 out"):
            newest_checkpoint(tmp_path)
    shutil.rmtree(stage.parent)
    assert newest_checkpoint(tmp_path).version == 5


def test_all_that_are_spoilt_are_named_and_that_no_other_is_whole(tmp_path: Path) -> None:
    spoil(write(tmp_path, 10).path / "stage-0.safetensors", "altered")
    spoil(write(tmp_path, 20, epoch=2).path / "manifest.json", "torn")
    with pytest.raises(CheckpointError) as refused:
        newest_checkpoint(tmp_path)
    told = str(refused.value)
    assert "step-000020" in told.split(";")[0] and "no other one is whole" in told
    assert all(f"step-{n:06d}" in told for n in (10, 20)), told


def test_an_older_one_that_is_spoilt_is_no_trouble(tmp_path: Path) -> None:
    spoil(write(tmp_path, 5).path / "manifest.json", "empty")
    write(tmp_path, 10)
    assert newest_checkpoint(tmp_path).version == 10
