"""The identity of a run, by content: its fingerprint, its folder, and who is told what differs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmrt.cli.swarm.beginning import load_run
from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.data import open_data
from swarmrt.errors import CheckpointError, ConfigError, ModelError, UsageError
from swarmrt.model.code import sources_of
from swarmrt.model.same_state import check_same_state, check_state_fits
from swarmrt.model.stage import Stage
from swarmrt.run_identity import (
    RELEASE,
    check_release,
    deciding,
    differences,
    fingerprint,
    library_notes,
    pinned,
    without_pins,
)
from swarmrt.runtime.checkpoints.epochs import write_epoch
from swarmrt.runtime.trainer.folders import (
    claimed,
    read_run,
    refuse_changes,
    refuse_used,
    write_run,
)
from tests.cli.keys.test_access import Home, join_line, wait_for
from tests.cli.keys.test_access import config as config
from tests.processes import PATIENCE_S, ROOT, environment, swarmrt


def run(**sections: Any) -> RunConfig:
    return parse_config(sections, "test")


def test_everything_that_decides_the_weights_is_in_the_fingerprint() -> None:
    plain = run()
    others = [
        run(run={"seed": 1}),
        run(run={"steps": 201}),
        run(optimizer={"lr": 1e-4}),
        run(model={"layers": 7}),
        run(stages={"layers": [3, 3]}),
        run(batch={"microbatches": 4}),
        run(precision={"gradients": "int8"}),
        run(data={"held_out": 0.1}),
        pinned(plain, "0" * 32, "1" * 32),
        pinned(plain, "1" * 32, "1" * 32),
    ]
    assert len({fingerprint(config) for config in [plain, *others]}) == 1 + len(others)


def test_what_decides_nothing_is_not() -> None:
    """A longer wait, a file that lies elsewhere, another name."""
    plain = run()
    for other in (
        run(run={"name": "another"}),
        run(links={"queue_s": 5.0}),
        run(checkpoint={"keep": 9}),
        run(data={"source": "elsewhere.txt"}),
    ):
        assert fingerprint(other) == fingerprint(plain)


def test_every_section_is_known_to_decide_or_not() -> None:
    """A new one must be thought of."""
    decides = {name.partition(".")[0] for name in deciding(run())}
    assert decides | {"links", "wiring", "rebalancing", "evaluation", "checkpoint"} == set(
        RunConfig.model_fields
    )


def test_what_differs_is_said_in_words(tmp_path: Path) -> None:
    old = pinned(run(), None, "0" * 32)
    new = pinned(run(run={"seed": 7, "steps": 900}, optimizer={"lr": 0.1}), None, "1" * 32)
    assert sorted(differences(old, new)) == ["data.digest", "optimizer.lr", "run.seed"]
    with pytest.raises(UsageError, match=r"run\.seed was 0 and is 7.*text is not what it was"):
        refuse_changes(old, new, ["optimizer.lr"], tmp_path)
    refuse_changes(old, new, ["optimizer.lr", "run.seed", "data.digest"], tmp_path)
    with pytest.raises(UsageError, match=r"optimizer\.beta.*nothing of that name"):
        refuse_changes(old, new, ["optimizer.beta"], tmp_path)


SMALL = {"layers": 3, "width": 16, "heads": 4, "kv_heads": 2}


@pytest.mark.parametrize(
    ("changes", "at_fault"),
    [
        ({"optimizer": {"lr": 0.1, "kind": "sgd"}, "run": {"seed": 3}}, "optimizer.kind"),
        ({"model": {**SMALL, "width": 32}}, "model.width"),
        ({"model": {**SMALL, "layers": 4}}, "model.layers"),
        ({"model": {**SMALL, "kv_heads": 4, "dtype": "float64"}}, "model.kv_heads, model.dtype"),
        ({"optimizer": {"staleness": 1}}, "optimizer.staleness"),
        ({"optimizer": {"lr": 0.1, "eps": 1e-6, "predict": False}, "run": {"seed": 3}}, ""),
        ({"model": {**SMALL, "dropout": 0.1, "recompute": True}}, ""),
        ({"precision": {"compute": "bfloat16"}, "batch": {"microbatch": 2}}, ""),
    ],
)
def test_what_makes_other_tensors_cannot_be_changed_for_a_state_that_exists(
    changes: dict[str, Any], at_fault: str
) -> None:
    cut = {"layers": [1, 2]}
    known = run(model=SMALL, stages=cut)
    new = run(**{"model": SMALL, "stages": cut, **changes})
    if not at_fault:
        return check_same_state(known, new)
    with pytest.raises(ModelError, match=rf"^{at_fault} cannot be changed .* begin another run"):
        check_same_state(known, new)


def test_code_that_makes_other_tensors_does_not_fit_a_state_that_exists() -> None:
    config = run(model=SMALL, stages={"layers": [1, 2]})
    states = [Stage(config, stage).state() for stage in range(2)]
    check_state_fits(config, states)
    states[1]["model.head.weight"] = states[1]["model.head.weight"][:-1]
    with pytest.raises(ModelError, match=r"of stage 1, which exists, has not the tensor .*head"):
        check_state_fits(config, states)


def test_run_of_an_earlier_version_is_gone_on_with() -> None:
    """It has not written down what its text and code were."""
    assert not differences(run(), pinned(run(), "0" * 32, "1" * 32))


def test_configuration_that_names_another_text_is_refused() -> None:
    named = run(data={"digest": "0" * 32})
    assert pinned(named, None, "0" * 32).data.digest == "0" * 32
    with pytest.raises(ConfigError, match=r"data\.digest says 0.* the text here is 1"):
        pinned(named, None, "1" * 32)


def test_release_of_swarmrt_decides_and_those_of_libraries_are_told() -> None:
    here = pinned(run(), None, "0" * 32)
    assert here.run.swarmrt == RELEASE
    other = run(run={"swarmrt": "99.1", "libraries": "torch 9.9"}, data={"digest": "0" * 32})
    assert differences(here, other) == {
        "run.swarmrt": f"run.swarmrt was {here.run.swarmrt!r} and is '99.1'"
    }
    with pytest.raises(ConfigError, match=r"run\.swarmrt says 99\.1, but swarmrt here is"):
        pinned(other, None, "0" * 32)
    allowed = pinned(without_pins(other, ["run.swarmrt"]), None, "0" * 32)
    assert allowed == here, "its libraries are those that are here"
    assert not library_notes(here, "the trainer") and not library_notes(run(), "the trainer")
    (note,) = library_notes(other, "the trainer")
    assert note.startswith("the trainer has torch 9.9, and here is torch")


def test_record_of_another_release_is_named_before_anything_of_it_is_read() -> None:
    """It may have settings that are unknown here."""
    nothing_said: list[dict[str, Any]] = [{}, {"run": {}}, {"run": 7}, {"run": {"swarmrt": None}}]
    for record in nothing_said:
        check_release(record, "run 'x'")
    with pytest.raises(ConfigError, match=r"run 'x' is made by swarmrt 0\.99\\n, and here is"):
        check_release({"run": {"swarmrt": "0.99\n"}, "new": {"key": 1}}, "run 'x'")


def test_text_is_known_by_its_tokens_wherever_it_lies(tmp_path: Path) -> None:
    text = b"one two three four five six seven " * 40
    (tmp_path / "a.txt").write_bytes(text)
    np.save(tmp_path / "b.npy", np.frombuffer(text, dtype=np.uint8).astype(np.int64))
    (tmp_path / "c.txt").write_bytes(text.replace(b"seven", b"seveN", 1))

    def known(name: str) -> str:
        data = {"source": str(tmp_path / name)}
        return open_data(run(data=data, model={"sequence": 8})).fingerprint

    assert known("a.txt") == known("b.npy") != known("c.txt")


def test_folder_has_one_run_and_one_living_trainer(tmp_path: Path) -> None:
    refuse_used(tmp_path)
    assert read_run(tmp_path) is None
    write_run(tmp_path, run())
    assert read_run(tmp_path) == run()
    with pytest.raises(UsageError, match="holds a run already.*--resume"):
        refuse_used(tmp_path)
    with claimed(tmp_path):
        program = (
            "import sys; from pathlib import Path\n"
            "from swarmrt.runtime.trainer.folders import claimed\n"
            "with claimed(Path(sys.argv[1])): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            check=False, capture_output=True, text=True, cwd=ROOT, env=environment(),
        )  # fmt: skip
        assert "another trainer is at work in this run folder" in other.stderr
    with claimed(tmp_path):
        pass  # it is free again


def test_cut_is_the_one_that_was_published_though_no_checkpoint_has_it(tmp_path: Path) -> None:
    """The trainer was killed before its first one; the file asks for a number of stages."""
    write_run(tmp_path, run(model={"layers": 7}, stages={"layers": [1, 1, 5]}))
    write_epoch(tmp_path, 1)
    asked = run(model={"layers": 7}, stages={"count": 3})
    found, known, checkpoint = load_run(asked, tmp_path, [])
    assert found.stages.layers == (1, 1, 5) and known == read_run(tmp_path) and checkpoint is None
    with pytest.raises(CheckpointError, match=r"this run has 3 stages of \[1, 1, 5\] layers"):
        load_run(run(model={"layers": 7}, stages={"layers": [1, 3, 3]}), tmp_path, [])
    with pytest.raises(UsageError, match="--allow-change belongs to --resume"):
        load_run(asked, None, ["run.seed"])


BUILDER = """
import torch.nn.functional as F
from torch import nn
import random, my_part
from my_part import activation

def build():
    import my_package.inner
    from my_package import late
    return [nn.Embedding(256, 8), activation(), nn.Linear(8, 256)], F.cross_entropy
"""
USER_CODE = {
    "my_model.py": BUILDER,
    "my_part.py": "from torch.nn import GELU as activation\n",
    "my_package/__init__.py": "",
    "my_package/inner.py": "class Inner:\n    def new(self):\n        from . import deep\n",
    "my_package/late.py": "from importlib import import_module\nimport_module('named')\n",
    "my_package/deep.py": "SIZE = 1\n",
    "named.py": "SIZE = 1\n",
    "not_used.py": "SIZE = 1\n",
    "random.py": "SIZE = 1\n",  # which is Python's own for whoever imports it
}
ITS_CODE = (
    "from swarmrt.config_toml import parse_config; from swarmrt.model.code import code_of\n"
    "print(code_of(parse_config({'model': {'kind': 'my_model:build'}}, 'test')))\n"
)


def write_code(folder: Path, part: str = "") -> Path:
    """Write a builder's code, with this at the end of one of its files."""
    for name, text in USER_CODE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + (part if name == "named.py" else ""))
    return folder


def said_in(folder: Path, program: str) -> str:
    """Return what a program prints that finds the builder in this folder."""
    program = (
        "from pathlib import Path; from swarmrt.model.builders import look_in\n"
        f"look_in([Path.cwd()])\n{program}"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True,
        cwd=folder, env=environment(),
    )  # fmt: skip
    return done.stdout


def test_code_of_a_builder_is_all_of_the_users_own_that_it_can_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(write_code(tmp_path))
    found = set(sources_of("my_model:build").values())
    assert found == {tmp_path / name for name in USER_CODE} - {
        tmp_path / "not_used.py",
        tmp_path / "random.py",
    }
    assert not {"my_model", "my_part"} & set(sys.modules), "nothing of it has run"


def test_code_of_an_installed_builder_is_its_package_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_code(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(folder)
    assert set(sources_of("my_model:build")) == {"my_model"}
    assert set(sources_of("my_package.inner:build")) == {
        "my_package", "my_package.inner", "my_package.deep"
    }  # fmt: skip


def test_folders_that_are_no_packages_may_lie_in_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my_models" / "large"
    folder.mkdir(parents=True)
    (folder / "first.py").write_text("import my_models.large.second")
    (folder / "second.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    modules = {"my_models.large.first", "my_models.large.second"}
    assert set(sources_of("my_models.large.first:build")) == modules


def test_code_of_a_builder_is_what_runs_whatever_was_imported_or_is_written_anew(
    tmp_path: Path,
) -> None:
    plain = said_in(write_code(tmp_path / "plain"), ITS_CODE)
    before = "import my_part, my_package.late, not_used\n"
    again = "Path('named.py').write_text('SIZE = 3')\n"
    folder = write_code(tmp_path / "again")
    assert said_in(folder, before + ITS_CODE + again + ITS_CODE) == 2 * plain
    assert said_in(folder, ITS_CODE) != plain


@pytest.mark.swarm
def test_second_run_in_a_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    write_run(tmp_path / "run", run())
    (tmp_path / "run.toml").write_text("[model]\nlayers = 3\nwidth = 16\nheads = 2\nkv_heads = 1\n")
    refused = swarmrt("local", tmp_path / "run.toml", "--run-dir", tmp_path / "run")
    assert refused.returncode == 2 and "holds a run already" in refused.stderr
    assert not (tmp_path / "run" / "config.toml").exists()


@pytest.mark.swarm
def test_peers_follow_a_run_that_its_owner_has_changed(config: Path, tmp_path: Path) -> None:
    """The trainer is killed, and goes on with another rate: only because its owner says so."""
    owner, alice = Home(tmp_path / "owner"), Home(tmp_path / "alice")
    run_dir, said = tmp_path / "run", [tmp_path / name for name in ("1.log", "2.log")]
    logs = [tmp_path / "stage-0.log", tmp_path / "stage-1.log"]
    with owner.running("train", config, "--run-dir", run_dir, log=said[0]) as trainer:
        line = join_line(said[0])
        with (
            alice.running("serve", line, "--stage", 0, log=logs[0]),
            alice.running("serve", line, "--stage", 1, log=logs[1]),
        ):
            wait_for(said[0], "1/100000")
            trainer.kill()
            trainer.wait(PATIENCE_S)
            changed = ("train", config, "--resume", run_dir, "--set", "optimizer.lr=0.0001")
            refused = owner.run(*changed)
            assert (
                refused.returncode == 2 and "optimizer.lr was 0.003 and is 0.0001" in refused.stderr
            )
            allowed = (*changed, "--allow-change", "optimizer.lr")
            with owner.running(*allowed, log=said[1]) as again:
                wait_for(said[1], "held-out")
                assert all("has another configuration now" in log.read_text() for log in logs)
                again.terminate()
                again.wait(PATIENCE_S)
    assert read_run(run_dir).optimizer.lr == 0.0001  # type: ignore[union-attr]
