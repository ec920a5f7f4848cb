"""States that peers leave when they stop, and take up again."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import CheckpointError, RunError, UsageError
from swarmrt.model.stage import Stage
from swarmrt.runtime.state.left_state import LeftState

CONFIG = parse_config(
    {
        "model": {"kind": "decoder", "layers": 2, "width": 16, "heads": 2, "sequence": 8},
        "stages": {"layers": [1, 1]},
    },
    "a test",
)


def stage_of(config: RunConfig = CONFIG, index: int = 1, fill: float | None = None) -> Stage:
    stage = Stage(config, index)
    if fill is not None:
        state = {name: tensor.clone().fill_(fill) for name, tensor in stage.live_state().items()}
        stage.load_state(state, 7)
    return stage


def place(folder: Path, run: str = "a@b", born: int = 5, stage: int = 1) -> LeftState:
    return LeftState(folder, run, born, stage)


def test_what_was_left_is_taken_up_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    assert place(tmp_path).take_up(CONFIG, stage_of()) is None
    for fill in (1.0, 2.0):
        place(tmp_path / "new").leave(CONFIG, stage_of(fill=fill), 34, 0.5)
    stage = stage_of()
    left = place(tmp_path / "new").take_up(CONFIG, stage)
    assert left is not None and (left.version, left.applied, left.norm) == (7, 34, 0.5)
    assert stage.version == 7 and stage.digest() == left.parameters_digest
    assert all(bool((tensor == 2.0).all()) for tensor in stage.live_state().values())
    assert len(list((tmp_path / "new").iterdir())) == 2, "nothing is left of the first"


@pytest.mark.parametrize(
    ("other", "config", "what"),
    [
        (place(Path(), run="c@d"), CONFIG, "run a@b"),
        (place(Path(), born=6), CONFIG, "an earlier run of that name"),
        (place(Path()), CONFIG.model_copy(update={"batch": CONFIG.batch.model_copy(
            update={"microbatch": 77})}), "another configuration"),
    ],
)  # fmt: skip
def test_what_is_of_something_else_is_refused_and_kept(
    tmp_path: Path, other: LeftState, config: RunConfig, what: str
) -> None:
    place(tmp_path).leave(CONFIG, stage_of(fill=1.0), 34, 0.5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    theirs = LeftState(tmp_path, other.run, other.born, other.stage)
    with pytest.raises(UsageError, match=what):
        theirs.take_up(config, stage_of())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_stages_share_a_folder(tmp_path: Path) -> None:
    place(tmp_path, stage=0).leave(CONFIG, stage_of(index=0, fill=1.0), 34, 0.5)
    place(tmp_path, stage=1).leave(CONFIG, stage_of(index=1, fill=2.0), 34, 0.5)
    for index in (0, 1):
        assert place(tmp_path, stage=index).take_up(CONFIG, stage_of(index=index)) is not None


def test_damage_is_found(tmp_path: Path) -> None:
    place(tmp_path).leave(CONFIG, stage_of(fill=1.0), 34, 0.5)
    [file] = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="corrupted"):
        place(tmp_path).take_up(CONFIG, stage_of())
    (tmp_path / "stage-1.json").write_text("{")
    with pytest.raises(CheckpointError, match="no description"):
        place(tmp_path).take_up(CONFIG, stage_of())


def test_a_writer_that_is_killed_leaves_the_earlier_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path).leave(CONFIG, stage_of(fill=1.0), 34, 0.5)
    rename, calls = Path.rename, list[Path]()

    def die_at_the_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        place(tmp_path).leave(CONFIG, stage_of(fill=2.0), 35, 0.5)
    left = place(tmp_path).take_up(CONFIG, stage := stage_of())
    assert left is not None and left.applied == 34
    assert all(bool((tensor == 1.0).all()) for tensor in stage.live_state().values())


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be left there"):
        place(tmp_path / "file").leave(CONFIG, stage_of(fill=1.0), 34, 0.5)
