"""Configuration: file, environment, overrides; every mistake is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from swarmrt.config import RunConfig, dump_toml, load_config, parse_config
from swarmrt.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_override_beats_environment_beats_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[run]\nsteps = 1\nseed = 1\nname = 'one'")
    environment = {"SWARMRT_RUN_SEED": "2", "SWARMRT_RUN_NAME": "two", "HOME": "/"}
    config = load_config(path, ["run.name=three"], environment)
    assert (config.run.steps, config.run.seed, config.run.name) == (1, 2, "three")


@pytest.mark.parametrize("comments", [False, True])
def test_dumped_configuration_loads_to_the_same(comments: bool) -> None:
    config = load_config(None, ["stages.layers=[2,1,3]", "model.dtype=float64"], {})
    again = parse_config(tomllib.loads(dump_toml(config, comments=comments)), "dump")
    assert again == config


def test_every_key_is_explained() -> None:
    text = dump_toml(RunConfig(), comments=True)
    assert all("#" in line for line in text.splitlines() if "=" in line)


MISTAKES = {
    "unknown section": ("[modle]\nlayers = 2", "did you mean 'model'?"),
    "unknown key": ("[run]\nstep = 2", "unknown key run.step; did you mean 'steps'?"),
    "wrong type": ("[run]\nsteps = 'many'", "run.steps"),
    "not positive": ("[batch]\nmicrobatch = 0", "batch.microbatch"),
    "no section": ("run = 3", "[run] must be a section"),
    "not TOML": ("[run", "not valid TOML"),
    "heads": ("[model]\nwidth = 100\nheads = 3", "even multiple of heads"),
    "kv heads": ("[model]\nheads = 4\nkv_heads = 3", "multiple of kv_heads"),
    "two cuts": ("[stages]\ncount = 2\nlayers = [1, 1, 1]", "stages.count is 2"),
    "kind": ("[model]\nkind = 'transformer'", 'neither "decoder" nor'),
    "small messages": (
        "[links]\nmax_message_bytes = 1000",
        "links.max_message_bytes 1000 must be at least 5242880: state",
    ),
    "large activations": (
        "[model]\nwidth = 8192\nsequence = 65536",
        "is less than the 8592031808 bytes of a microbatch's activations",
    ),
    "name": ("[run]\nname = 'a b'", "letters, digits"),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_in_file_is_named_with_the_file(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_config(path, [], {})
    assert expected in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value) and ": :" not in str(error.value)


def test_unknown_environment_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'SWARMRT_RUN_STEPS'"):
        load_config(None, [], {"SWARMRT_RUN_STEP": "3"})


@pytest.mark.parametrize("override", ["steps=3", "run.steps", "run=3"])
def test_override_needs_section_key_and_value(override: str) -> None:
    with pytest.raises(ConfigError, match="section.key=value"):
        load_config(None, [override], {})


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="swarmrt init"):
        load_config(tmp_path / "no.toml", [], {})
