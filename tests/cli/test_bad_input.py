"""Bad input gets one clear line and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.processes import local, running, swarmrt

TINY = """
[run]
name = "tiny"
steps = 2
[model]
layers = 2
width = 32
heads = 2
kv_heads = 1
sequence = 16
[stages]
layers = [1, 1]
[batch]
microbatch = 1
microbatches = 2
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def refused(*arguments: object, expected: str, env: dict[str, str] | None = None) -> None:
    done = swarmrt(*arguments, env=env)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert expected in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


BAD_SETTINGS = {
    "unknown key": ("run.stepz=3", "unknown key run.stepz; did you mean 'steps'?"),
    "missing data": ("data.source=/no/such/file.txt", "/no/such/file.txt"),
    "more stages than layers": ("stages.layers=[1,1,1]", "the model has 2"),
    "builder": ("model.kind=no_such_package:build", "no_such_package"),
}


@pytest.mark.parametrize(("setting", "expected"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
@pytest.mark.parametrize("command", ["local", "train"])
def test_bad_settings(tiny: Path, command: str, setting: str, expected: str) -> None:
    refused(command, tiny, "--set", setting, expected=expected)


def test_rate_of_links_without_a_unit_of_bits(tiny: Path) -> None:
    refused("local", tiny, "--link-rate", "50MB", expected="--up 50MB: write bits a second")


def test_unknown_environment_name(tiny: Path) -> None:
    refused("config", tiny, expected="SWARMRT_RUN_STEPS", env={"SWARMRT_RUN_STEP": "3"})


def test_bad_replicas(tiny: Path) -> None:
    refused("local", tiny, "--replicas", "1,2,3", expected="the run has 2 stages")
    refused("local", tiny, "--process", "0", expected="no process has a seat at stage 1")
    refused("local", tiny, "--process", "0,2", expected="stages are 0 to 1")
    refused("local", tiny, "--process", "0,0", expected="one seat at a stage")
    refused("local", tiny, "--process", "0,1", "--replicas", "1", expected="leave --replicas out")


@pytest.mark.parametrize("spares", ["1,0,1", "-1", "one"])
def test_bad_spares(tiny: Path, spares: str) -> None:
    refused("local", tiny, f"--spares={spares}", expected=f"--spares {spares}: write one number")


NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/" + "Qm" + "a" * 44


@pytest.mark.parametrize("address", ["nonsense", NOBODY])
def test_join_address_that_does_not_answer(tiny: Path, address: str) -> None:
    line = swarmrt("invite", tiny, "--at", NOBODY).stdout.strip()
    refused("train", tiny, "--join", address, expected=address)
    refused("serve", line, "--stage", 0, "--join", address, expected=address)


NO_LINES = {
    "another word": ("http://example.org", "is not a join line"),
    "an old address": (NOBODY, "is not a join line"),
    "no fingerprint": ("swarmrt:tiny", "is not a run's id"),
    "cut off": ("swarmrt:tiny@" + "a" * 26 + "#v4.public.AAAA", "is cut off"),
    "a part that nobody knows": ("swarmrt:tiny@" + "a" * 26 + "?by=me", "is it whole"),
}


@pytest.mark.parametrize(("line", "expected"), NO_LINES.values(), ids=NO_LINES)
def test_what_is_no_join_line(line: str, expected: str) -> None:
    refused("serve", line, "--stage", 0, expected=expected)


def test_serve_without_a_line_where_nothing_was_joined(tmp_path: Path) -> None:
    fresh = {"XDG_DATA_HOME": str(tmp_path)}
    refused("serve", "--stage", 0, expected="has not joined any run yet", env=fresh)
    refused("serve", "--stage", 0, "--run", "x", expected="not joined run 'x' yet", env=fresh)


def test_owner_commands_say_what_is_wrong(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "key"
    other.write_text("not a key")
    refused("owner", "show", "--owner", other, expected="is not an Ed25519 key in PEM")
    refused("owner", "restore", tmp_path / "none", expected="cannot be read")
    assert swarmrt("owner", "backup", tmp_path / "copy").returncode == 0
    refused("owner", "restore", tmp_path / "copy", expected="there is a file already")
    refused("owner", "delegate", "--to", "me", "--run", "tiny", expected="base64url")
    refused("invite", tiny, expected="pass the address of its directory node with --at")
    refused("invite", tiny, "--at", NOBODY, "--expires", "soon", expected="7d")
    refused("revoke", tmp_path, "alice", expected="config.toml")
    refused("train", tiny, "--delegation", other, expected="not a statement")


def test_unknown_run_and_stage_out_of_range(tiny: Path, tmp_path: Path) -> None:
    with running("bootstrap", "--run", "tiny", "--json", "--listen", "127.0.0.1") as directory:
        join = json.loads(directory.stdout.readline())["join"]
        line = swarmrt("invite", tiny, "--at", join).stdout.strip()
        serve = ["serve", line, "--stage", 2]
        refused(*serve, expected="the directory knows no run tiny@")
        with running("train", tiny, "--join", join, "--run-dir", tmp_path / "run") as trainer:
            for said in trainer.stdout:
                if "waiting for peers" in said:
                    break
            refused(*serve, expected="stages 0 to 1")
            for_one = swarmrt("invite", tiny, "--at", join, "--stage", 0).stdout.strip()
            refused("serve", for_one, "--stage", 1, expected="is for stage 0 only")


def test_unknown_device(tiny: Path, tmp_path: Path) -> None:
    expected = "--device nonsense: not usable here"
    run = ["--run", "tiny", "--join", "/ip4/127.0.0.1/tcp/9"]
    refused("serve", "--stage", 0, *run, "--device", "nonsense", expected=expected)
    out = tmp_path / "alone.safetensors"
    refused("reference", tiny, "--out", out, "--device", "nonsense", expected=expected)


@pytest.mark.swarm
def test_corrupted_checkpoint(tiny: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    local(tiny, "--run-dir", run_dir, "--set", "checkpoint.every_steps=1")
    older, checkpoint = sorted((run_dir / "checkpoints").iterdir())
    damaged = checkpoint / "stage-1.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    instead = f"that of step 1 is whole: move {checkpoint} out of the way to use it"
    expected = f"stage-1.safetensors: corrupted (its digest differs from the manifest's); {instead}"
    out = tmp_path / "weights.safetensors"
    for command in (
        ("local", tiny, "--resume", run_dir),
        ("export", run_dir, "--out", out),
        ("merge", run_dir, run_dir, "--out", out),
        ("generate", run_dir),
    ):
        refused(*command, expected=expected)
    (checkpoint / "manifest.json").write_text("{")
    refused("generate", run_dir, expected="manifest.json: corrupted")
    checkpoint.rename(run_dir / "checkpoints" / f"{checkpoint.name}-torn")
    assert "after 1 steps" in swarmrt("export", run_dir, "--out", out).stdout
    older.rename(run_dir / "checkpoints" / "older")
    refused("generate", run_dir, expected="holds no checkpoint yet")
    refused("generate", tmp_path / "nowhere", expected="no such run folder")


def test_moving_peers_is_the_trainer_s() -> None:
    refused("rebalance", "swarmrt:x", expected="With --dry-run this command says what it would do")


def test_rebalance_of_a_run_that_was_never_joined(tmp_path: Path) -> None:
    refused(
        "rebalance", "--run", "demo", "--dry-run",
        expected="has not joined run 'demo' yet", env={"XDG_DATA_HOME": str(tmp_path)},
    )  # fmt: skip
