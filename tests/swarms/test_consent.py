"""A volunteer's machine runs what its owner has allowed, whatever a run's record or a checkpoint
asks for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarmrt.config_toml import parse_config
from swarmrt.runtime.directory.network import open_network
from swarmrt.trust.joining_line import JoinLine
from tests.papers import Owner
from tests.processes import PATIENCE_S, ROOT, environment, patience, running, swarmrt

Done = subprocess.CompletedProcess[str]
NAME = "open-door"
OWN = """
import pathlib
from torch import nn
from torch.nn.functional import cross_entropy
pathlib.Path(__file__).with_name("imported").touch()

def build(width=8):
    layers = [nn.Embedding(256, width), nn.Linear(width, 256)]
    return layers, lambda logits, targets: cross_entropy(logits.mT, targets, reduction="none")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a builder, and with a file that would pass for one of our modules."""
    (tmp_path / "own_model.py").write_text(OWN)
    bomb = f"import pathlib; pathlib.Path({str(tmp_path / 'shadowed')!r}).touch(); {{}}[0]"
    (tmp_path / "typer.py").write_text(bomb)
    return tmp_path


def record(kind: str = "decoder", **sections: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration as a trainer publishes it."""
    sections["model"] = {"kind": kind, **sections.get("model", {})}
    values = {"run": {"name": NAME}, "stages": {"layers": [1, 1]}, **sections}
    return parse_config(values, "test").model_dump(mode="json")


def serve(config: dict[str, Any], *arguments: object, cwd: Path, fresh: bool = False) -> Done:
    """`swarmrt serve` at a directory in which a run has this configuration, until it ends or serves
    the stage."""
    return asyncio.run(_serve(config, arguments, cwd, fresh))


async def _serve(
    config: dict[str, Any], arguments: tuple[object, ...], cwd: Path, fresh: bool
) -> Done:
    owner = Owner(NAME)
    async with open_network((), papers=owner.node()) as network, asyncio.timeout(PATIENCE_S):
        at, until = network.daemon.addresses(), time.time() + PATIENCE_S
        published = owner.signer.published(network.me, 1, config, at, [], until)
        await network.directory.publish_run(owner.run, published, published, ttl_s=PATIENCE_S)
        line = JoinLine(owner.run, tuple(at))
        return await asyncio.to_thread(
            _run, "serve", line, "--stage", 0, *arguments, cwd=cwd, fresh=fresh
        )


def _run(*arguments: object, cwd: Path, fresh: bool) -> Done:
    """It is told to leave as soon as it serves the stage."""
    said = ""
    with running(*arguments, cwd=cwd, fresh=fresh) as process, patience(process):
        for line in process.stdout:
            said += line
            if "serves stage" in line:
                process.terminate()
        _, errors = process.communicate()
    return Done(process.args, process.wait(), said, errors)


def is_refused(done: Done, *words: str) -> bool:
    one_line = len(done.stderr.strip().splitlines()) == 1
    return done.returncode == 2 and one_line and all(word in done.stderr for word in words)


def test_a_record_cannot_name_a_command(folder: Path) -> None:
    proof = folder / "proof"
    config = record("subprocess:getoutput", model={"options": {"cmd": f"id > {proof}"}})
    done = serve(config, cwd=folder)
    assert is_refused(done, "subprocess:getoutput", "has no builders"), done
    again = serve(config, "--allow-model", "subprocess:getoutput", cwd=folder)
    assert is_refused(again, "subprocess:getoutput", "has no builders"), again
    assert not proof.exists()


def test_a_builder_is_not_even_imported_without_consent(folder: Path) -> None:
    done = serve(record("own_model:build"), "--model-path", folder, cwd=folder)
    assert is_refused(
        done,
        f"run {NAME}@",
        "asks for the builder own_model:build, which is code on your machine",
        "pass --allow-model own_model:build if you trust it",
    ), done
    assert not (folder / "imported").exists()


def test_consent_to_one_builder_is_none_to_another(folder: Path) -> None:
    asked = ["--allow-model", "own_model:other", "--model-path", folder]
    done = serve(record("own_model:build"), *asked, cwd=folder)
    assert is_refused(done, "pass --allow-model own_model:build"), done
    assert not (folder / "imported").exists()


def test_the_working_folder_is_no_place_for_modules(folder: Path) -> None:
    asked = ["--allow-model", "own_model:build"]
    done = serve(record("own_model:build"), *asked, cwd=folder, fresh=True)
    assert is_refused(done, "cannot import own_model", "--model-path"), done
    assert not (folder / "imported").exists() and not (folder / "shadowed").exists()


def test_a_scripts_folder_is_no_place_for_modules(folder: Path) -> None:
    """What starts swarmrt when it is installed lies in a folder with other programs."""
    script = folder / "swarmrt-script.py"
    script.write_text("from swarmrt.__main__ import main\nmain()\n")
    command = [sys.executable, str(script), "failpoints"]
    subprocess.run(
        command, check=True, cwd=folder.parent, env=environment(), stdout=subprocess.PIPE
    )
    assert not (folder / "shadowed").exists()


@pytest.mark.parametrize("path", [f":{ROOT}", f"{ROOT}:", f"{ROOT}::"])
def test_nothing_between_two_colons_is_no_place_for_modules(folder: Path, path: str) -> None:
    """The usual `PYTHONPATH=$PYTHONPATH:…` has one where that was empty."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "swarmrt", "failpoints"], check=False, cwd=folder,
        env={**environment(), "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (folder / "shadowed").exists()


def test_module_of_pythons_own_name_in_the_working_folder_is_not_run(folder: Path) -> None:
    """`local` starts its processes there, with the builder that lies in it."""
    for name in ("tokenize", "random", "uuid"):
        (folder / f"{name}.py").write_text((folder / "typer.py").read_text())
    (folder / "run.toml").write_text(
        '[run]\nsteps = 1\n[model]\nkind = "own_model:build"\nsequence = 8\n[stages]\n'
        "layers = [1, 1]\n[batch]\nmicrobatches = 1\n"
    )
    done = swarmrt("local", folder / "run.toml", cwd=folder, fresh=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "imported").exists() and not (folder / "shadowed").exists()


def test_an_allowed_builder_is_served(folder: Path) -> None:
    asked = ["--allow-model", "own_model:build", "--model-path", folder]
    done = serve(record("own_model:build"), *asked, cwd=folder, fresh=True)
    assert done.returncode == 0 and "2,048 parameters" in done.stdout, done
    assert (folder / "imported").exists() and not (folder / "shadowed").exists()


def test_builder_in_another_version_than_the_trainers_is_refused_before_it_runs(
    folder: Path,
) -> None:
    asked = ["--allow-model", "own_model:build", "--model-path", folder]
    done = serve(record("own_model:build", model={"code": "0" * 32}), *asked, cwd=folder)
    file = str(folder / "own_model.py")
    assert is_refused(done, "own_model:build, which is in", file, "not what the trainer has"), done
    assert not (folder / "imported").exists()


def test_run_of_another_release_is_refused(folder: Path) -> None:
    done = serve(record(run={"name": NAME, "swarmrt": "99.0"}), cwd=folder)
    assert is_refused(done, f"run {NAME}@", "is made by swarmrt 99.0, and here is"), done


def test_a_name_that_is_none_is_refused(folder: Path) -> None:
    done = serve(record(), "--allow-model", "own_model", cwd=folder)
    assert is_refused(done, "--allow-model 'own_model': write package.module:function"), done


WIDE: dict[str, Any] = {"layers": 2, "width": 1 << 16, "heads": 64, "kv_heads": 64}
TOO_LARGE: dict[str, Callable[[], dict[str, Any]]] = {
    "weights": lambda: record(model=WIDE),
    "activations": lambda: record(
        model={"layers": 2, "sequence": 1 << 16},
        batch={"microbatch": 500},
        links={"max_message_bytes": 1 << 34},
    ),
}


@pytest.mark.parametrize("config", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_stage_that_does_not_fit_is_refused_with_both_figures(
    folder: Path, config: Callable[[], dict[str, Any]]
) -> None:
    done = serve(config(), cwd=folder)
    assert is_refused(done, "stage 0 needs", "80% of what is free is", "pass --memory"), done
    limited = serve(record(model={"layers": 2}), "--memory", "1MB", cwd=folder)
    assert is_refused(limited, "stage 0 needs", "--memory allows 1.0 MB"), limited


@pytest.mark.parametrize("layers", [10**9, 2**62])
def test_numbers_beyond_reason_are_refused_at_once(folder: Path, layers: int) -> None:
    config = record()
    config["model"]["layers"] = layers
    config["stages"]["layers"] = [layers // 2, layers // 2]
    done = serve(config, cwd=folder)
    assert is_refused(done, "layers", "less than or equal to 1024"), done


def test_a_record_without_a_cut_is_refused(folder: Path) -> None:
    config = record()
    config["stages"] = {"count": 2}
    done = serve(config, cwd=folder)
    assert is_refused(done, "stages.layers is missing"), done
    config["stages"] = {"layers": [1, 7]}
    done = serve(config, cwd=folder)
    assert is_refused(done, "adds up to 8 layers, but the model has 6"), done


@pytest.mark.swarm
def test_a_foreign_run_folder_needs_consent_where_its_code_would_run(folder: Path) -> None:
    run_dir, source = folder / "run", folder / "run.toml"
    source.write_text(
        '[run]\nsteps = 1\n[model]\nkind = "own_model:build"\nsequence = 8\n[stages]\n'
        "layers = [1, 1]\n[batch]\nmicrobatches = 1\n"
    )
    done = swarmrt("local", source, "--run-dir", run_dir, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "imported").unlink()
    refused = swarmrt("generate", run_dir, "--model-path", folder, cwd=folder)
    assert is_refused(refused, f"{run_dir} asks for the builder own_model:build"), refused
    exported = swarmrt("export", run_dir, "--out", folder / "weights.safetensors", cwd=folder)
    assert exported.returncode == 0, exported.stderr
    assert not (folder / "imported").exists(), "export needs no code of the model's"
    asked = ["--allow-model", "own_model:build", "--model-path", folder, "--tokens", 3]
    sampled = swarmrt("generate", run_dir, *asked, cwd=folder, fresh=True)
    assert sampled.returncode == 0, sampled.stderr
    assert not (folder / "shadowed").exists()
