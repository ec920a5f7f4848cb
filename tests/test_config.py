"""Configuration: file, environment, overrides; every mistake is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarmrt.averaging.starts import start_of
from swarmrt.config import STRATEGIES, RunConfig
from swarmrt.config_toml import dump_toml, explained_toml, load_config, parse_config
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


def test_dumped_configuration_loads_to_the_same() -> None:
    config = load_config(None, ["stages.layers=[2,1,3]", "model.dtype=float64"], {})
    again = parse_config(tomllib.loads(dump_toml(config)), "dump")
    assert again == config
    assert parse_config(tomllib.loads(explained_toml()), "dump") == RunConfig()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(options=st.dictionaries(TEXTS, VALUES, max_size=4), name=TEXTS)
@example(options={"first line\n": 'second "line"\r\n\x00\x7f\\'}, name="a\nb")
@settings(max_examples=50, deadline=None, derandomize=True)
def test_whatever_options_and_paths_hold_is_written_as_it_is(
    options: dict[str, object], name: str
) -> None:
    values = {"model": {"kind": "mine:build", "options": options}, "data": {"source": name}}
    config = parse_config(values, "test")
    assert parse_config(tomllib.loads(dump_toml(config)), "dump") == config


def test_paths_in_a_file_are_relative_to_it_and_others_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for each in (folder, elsewhere):
        each.mkdir()
    path = write(folder, "[data]\nsource = 'text.txt'\ntokenizer = '../tokenizer.json'")
    monkeypatch.chdir(elsewhere)
    config = load_config(Path("../project/run.toml"), [], {})
    assert Path(config.data.source).resolve() == (folder / "text.txt").resolve()
    assert Path(config.data.tokenizer or "").resolve() == (tmp_path / "tokenizer.json").resolve()
    assert Path(config.data.source).is_absolute(), "a run folder's copy is read from elsewhere"
    said = load_config(path, ["data.source=other.txt"], {"SWARMRT_DATA_TOKENIZER": "here.json"})
    assert said.data.source == str(elsewhere / "other.txt")
    assert said.data.tokenizer == str(elsewhere / "here.json")
    copy = write(elsewhere, dump_toml(config))
    assert load_config(copy, [], {}) == config
    assert load_config(write(folder, "[data]\nsource = 'stdlib'"), [], {}).data.source == "stdlib"


def test_others_are_not_told_where_the_text_lies() -> None:
    data = {"source": "/home/alice/diary.txt", "tokenizer": "/home/alice/tokenizer.json"}
    told = parse_config({"data": data}, "test").told_to_others()
    assert (told.data.source, told.data.tokenizer) == ("diary.txt", "tokenizer.json")
    assert told.model_copy(update={"data": RunConfig().data}) == RunConfig()


def test_every_key_is_explained() -> None:
    text = explained_toml()
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
    "strategy": ("[averaging]\nstrategy = 'dilocco'", "did you mean 'diloco'?"),
    "no strategy": ("[averaging]\nstrategy = 'mean of all'", 'nor "package.module:Class"'),
    "two kinds of overlap": (
        "[averaging]\nstrategy = 'async'\n[optimizer]\nstaleness = 1",
        "needs optimizer.staleness = 0",
    ),
    "averages by owners": (
        "[averaging]\nstrategy = 'async'\n[optimizer]\napplied_by = 'owners'",
        'needs optimizer.applied_by = "all"',
    ),
    "averages in float64": (
        "[averaging]\nstrategy = 'async'\n[model]\ndtype = 'float64'",
        'averaging.precision = "model"',
    ),
    "islands that commit together": (
        "[averaging]\nislands = 2",
        'averaging.islands 2 needs an averaging.strategy that is not "sync"',
    ),
    "no island": ("[averaging]\nstrategy = 'diloco'\nislands = 0", "averaging.islands"),
    "demo with moments": ("[averaging]\nstrategy = 'demo'", 'needs optimizer.kind = "sgd"'),
    "demo that clips": (
        "[averaging]\nstrategy = 'demo'\n[optimizer]\nkind = 'sgd'",
        "needs optimizer.clip_norm = 0",
    ),
    "stale demo": (
        "[averaging]\nstrategy = 'demo'\n[optimizer]\nkind = 'sgd'\nclip_norm = 0\nstaleness = 1",
        "needs optimizer.staleness = 0",
    ),
    "demo by owners": (
        "[averaging]\nstrategy = 'demo'\n[optimizer]\nkind = 'sgd'\nclip_norm = 0\n"
        "applied_by = 'owners'",
        'needs optimizer.applied_by = "all"',
    ),
    "demo in float64": (
        "[averaging]\nstrategy = 'demo'\n[optimizer]\nkind = 'sgd'\nclip_norm = 0\n"
        "[model]\ndtype = 'float64'",
        'averaging.precision = "model"',
    ),
    "most frequencies": ("[averaging]\nchunk = 64\ntop_k = 33", "at most half of averaging.chunk"),
    "a clock for sync": ("[averaging]\nevery_s = 5", "for replicas that make steps of their own"),
    "a clock and sync steps": (
        "[averaging]\nstrategy = 'async'\nevery_s = 5\nsync_steps = 2",
        "needs averaging.sync_steps = 0",
    ),
    "lofi that skips": (
        "[averaging]\nstrategy = 'lofi'\n[optimizer]\nnot_finite = 'skip'",
        'needs optimizer.not_finite = "stop"',
    ),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_in_file_is_named_with_the_file(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_config(path, [], {})
    assert expected in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value) and ": :" not in str(error.value)


def test_steps_overlap_where_replicas_are_averaged_or_stale() -> None:
    plain, stale = load_config(None, [], {}), load_config(None, ["optimizer.staleness=1"], {})
    apart = load_config(None, ["averaging.strategy=async", "averaging.sync_steps=7"], {})
    assert (plain.overlap, stale.overlap, apart.overlap) == (0, 1, 1)
    assert (stale.fresh_steps, apart.fresh_steps) == (40, 8)
    assert (plain.replicas_precision, apart.replicas_precision) == ("model", "int8")
    own = load_config(None, ["averaging.strategy=mine.rules:Rule"], {})
    assert own.averaging.is_own and own.averaging.is_on and not apart.averaging.is_own


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


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_a_configuration_to_start_from(strategy: str) -> None:
    config = start_of(strategy)
    assert config.averaging.strategy == strategy
    assert parse_config(tomllib.loads(explained_toml(config)), "start") == config
    if config.averaging.is_on:
        assert config.batch.microbatches >= 2 * config.averaging.local_batch


def test_strategy_that_is_none_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="did you mean 'async'"):
        start_of("asinc")
