"""A private swarm of real processes, from the command line to the weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch

from swarmrt import lab
from swarmrt.lab.bench.emulation import Speed
from swarmrt.observe.log import read_all, read_entries
from swarmrt.scheduler.recording import FetchRecord, Header, Record, replay
from tests.processes import (
    COMMAND,
    ROOT,
    environment,
    local,
    our_processes,
    our_sockets,
    running,
    swarmrt,
    wait_until_said,
)

pytestmark = pytest.mark.swarm

EXACT = """
[run]
name = "exact"
steps = 20
seed = 3
[model]
layers = 4
width = 48
heads = 4
kv_heads = 2
sequence = 32
dropout = 0.1
dtype = "float64"
[stages]
count = 3
[batch]
microbatch = 2
microbatches = 6
[optimizer]
warmup_steps = 4
clip_norm = 0.5
[evaluation]
every_steps = 10
microbatches = 2
[checkpoint]
every_steps = 8
"""


@pytest.fixture
def exact(tmp_path: Path) -> Path:
    path = tmp_path / "exact.toml"
    path.write_text(EXACT)
    return path


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for the temporary files of processes; its path is short, as sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="t"))
    yield folder
    shutil.rmtree(folder)


def largest_difference(first: Path, second: Path) -> float:
    """Over all tensors: the largest difference over the tensor's largest value."""
    ours, theirs = safetensors.torch.load_file(first), safetensors.torch.load_file(second)
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in ours
    )


def trained_difference(
    config: Path, tmp_path: Path, replicas: str, *overrides: str, trial: bool = True
) -> float:
    """Train in a swarm and alone, and compare the weights."""
    settings = [part for override in overrides for part in ("--set", override)]
    run_dir = tmp_path / "run"
    options = [*settings] + ["--no-trial"] * (not trial)
    result = local(config, "--replicas", replicas, "--run-dir", run_dir, *options)
    assert result["steps"] == 20 and result["microbatches"] == 120
    assert result["replica_digests_equal"] is True
    check_metrics(run_dir, [int(number) for number in replicas.split(",")])
    check_logs(run_dir)
    return difference_to_reference(run_dir, config, tmp_path, *settings)


def difference_to_reference(
    run_dir: Path, config: Path, tmp_path: Path, *settings: str, steps: int = 20
) -> float:
    """Of the newest checkpoint's weights to those of one process after so many steps."""
    ours, alone = tmp_path / "swarm.safetensors", tmp_path / "alone.safetensors"
    for arguments in (
        ("export", run_dir, "--out", ours),
        ("reference", config, "--steps", steps, "--out", alone, *settings),
    ):
        done = swarmrt(*arguments)
        assert done.returncode == 0, done.stderr
    return largest_difference(ours, alone)


def check_metrics(run_dir: Path, replicas: list[int]) -> None:
    """All replicas of a stage have equal digests after every step."""
    lines = [
        json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines() if line
    ]
    steps = [line for line in lines if "digests" in line]
    assert [line["version"] for line in steps] == list(range(1, 21))
    for line in steps:
        assert [len(stage) for stage in line["digests"]] == replicas
        assert all(len(set(stage.values())) == 1 for stage in line["digests"])


def check_logs(run_dir: Path) -> None:
    """What every process recorded replays to the same instructions."""
    logs = [*run_dir.glob("peers/**/events.jsonl"), run_dir / "trainer" / "events.jsonl"]
    assert len(logs) >= 4
    for log in logs:
        for header, records in incarnations(log):
            for record, again in replay(header, records):
                assert repr(again) == repr(record.instructions), log


def incarnations(log: Path) -> list[tuple[Header, list[Record | FetchRecord]]]:
    """A process's records; a trainer that was resumed goes on in the same file."""
    found: list[tuple[Header, list[Record | FetchRecord]]] = []
    for record in read_all(log):
        if isinstance(record, Header):
            found.append((record, []))
        else:
            found[-1][1].append(record)
    return found


@pytest.mark.parametrize(
    ("replicas", "kind"), [("1,1,1", "adamw"), ("2,3,2", "adamw"), ("2,1,2", "muon")]
)
def test_weights_equal_the_reference_in_float64(
    exact: Path, tmp_path: Path, replicas: str, kind: str
) -> None:
    """Dropout and clipping on: promises P1 and P2, undisturbed."""
    assert trained_difference(exact, tmp_path, replicas, f"optimizer.kind={kind}") < 1e-9


def test_weights_equal_the_reference_in_float32_with_sgd(exact: Path, tmp_path: Path) -> None:
    sgd = ("model.dtype=float32", "optimizer.kind=sgd", "optimizer.lr=0.05")
    assert trained_difference(exact, tmp_path, "2,3,2", *sgd) < 1e-5


def test_int8_gradients_and_recomputation_follow_the_reference(exact: Path, tmp_path: Path) -> None:
    """Replicas stay equal to the bit; what int8 loses stays small."""
    sgd = ("model.dtype=float32", "optimizer.kind=sgd", "optimizer.lr=0.05")
    fewer_bytes = (*sgd, "precision.gradients=int8", "model.recompute=true")
    assert 1e-7 < trained_difference(exact, tmp_path, "2,1,2", *fewer_bytes) < 0.02


def test_own_model_equals_the_reference_also_when_steps_overlap(tmp_path: Path) -> None:
    config = ROOT / "examples" / "custom_model.toml"
    smaller = ("model.dtype=float64", "model.sequence=32", "run.steps=20", "batch.microbatches=6")
    overrides = (*smaller, "optimizer.staleness=1", "optimizer.fresh_steps=4")
    assert trained_difference(config, tmp_path, "2,1,2", *overrides) < 1e-9


def test_backward_in_two_halves_equals_the_reference(exact: Path, tmp_path: Path) -> None:
    """Computations that are long enough to be split. A peer that had split some is killed."""
    wide = {"model.width": 256, "batch.microbatch": 8, "run.steps": 4}
    pace, run_dir = Speed(0.04, 0.08), tmp_path / "run"
    speeds = [[pace], [pace, pace], [pace]]
    with lab.LocalSwarm(
        exact, [1, 2, 1], run_dir=run_dir, overrides=wide, threads=1, speeds=speeds
    ) as swarm:
        swarm.wait(step=1)
        swarm.peers(stage=1)[0].kill()
        swarm.finish()
    audit = swarm.audit()
    assert audit.passed and audit.steps == 4, audit.violations
    check_logs(run_dir)
    settings = [part for key, value in wide.items() for part in ("--set", f"{key}={value}")]
    assert difference_to_reference(run_dir, exact, tmp_path, *settings, steps=4) < 1e-9
    logs = {path.parent.name: path.read_text() for path in run_dir.glob("peers/**/events.jsonl")}
    split = {name for name, log in logs.items() if '"is":"WeightGradientsDone"' in log}
    assert split == {name for name in logs if not name.startswith("stage-0")}


def test_resume_continues_as_if_never_stopped(exact: Path, tmp_path: Path, temporary: Path) -> None:
    """Ctrl-C: no process and no socket is left, and the run goes on from its checkpoint."""
    run_dir = tmp_path / "run"
    command = [*COMMAND, "local", str(exact), "--replicas", "1,2,1", "--run-dir", str(run_dir)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment(), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step     5/"):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            break
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert our_processes(str(run_dir)) == [] and our_sockets(temporary) == []
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] != ["step-000020"]
    result = local(exact, "--replicas", "1,1,2", "--resume", run_dir)
    assert result["steps"] == 20
    assert difference_to_reference(run_dir, exact, tmp_path) < 1e-9


@pytest.mark.parametrize("staleness", [0, 1])
def test_faults_of_all_kinds_cost_no_gradient(exact: Path, tmp_path: Path, staleness: int) -> None:
    """Killed, drained, stopped and cut-off peers, a newcomer, a killed trainer, no first node."""
    run_dir = tmp_path / "run"
    # half a second for a step on any machine, for a newcomer to come in; more steps would amplify
    # rounding
    overrides = {"run.steps": 40, "batch.microbatches": 20, "optimizer.staleness": staleness}
    overrides["optimizer.fresh_steps"] = 2
    speeds = [[Speed(0.015, 0.03)]] * 3
    with lab.LocalSwarm(
        exact, [2, 2, 2], run_dir=run_dir, overrides=overrides, threads=1, speeds=speeds
    ) as swarm:
        swarm.wait(step=3)
        swarm.peers(stage=1)[0].kill()
        swarm.wait(swarm.version + 1)
        newcomer = swarm.spawn(stage=1)
        swarm.bootstrap.kill()
        swarm.cut(swarm.peers(stage=0)[0], swarm.peers(stage=0)[1], seconds=1.0)
        swarm.wait(swarm.version + 1)
        swarm.peers(stage=2)[0].pause(seconds=4.0)
        swarm.wait_for_member(newcomer)
        swarm.trainer.kill()
        swarm.trainer.resume()
        swarm.wait(swarm.version + 1)
        swarm.peers(stage=0)[1].terminate()
        swarm.finish()
        audit = swarm.audit()
    assert audit.passed and audit.steps == 40 and audit.fenced >= 2, audit
    assert our_processes(str(run_dir)) == []
    check_logs(run_dir)
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    assert difference_to_reference(run_dir, exact, tmp_path, *settings, steps=40) < 1e-9


def test_peers_may_come_before_and_after_the_trainer(exact: Path, tmp_path: Path) -> None:
    """Separate commands, as on separate machines: directory, peers, trainer."""
    run_dir = tmp_path / "run"
    steps = ["--set", "run.steps=6", "--set", "stages.count=2"]
    with running("bootstrap", "--run", "exact", "--json", "--listen", "127.0.0.1") as directory:
        join = json.loads(directory.stdout.readline())["join"]
        line = swarmrt("invite", exact, "--at", join, "--uses", 2).stdout.strip()
        serve = ["serve", line, "--wait", "--threads", "1"]
        with running(*serve, "--stage", 0) as early:
            trainer_command = ["train", exact, "--join", join, "--run-dir", run_dir, *steps]
            with running(*trainer_command, "--json") as trainer:
                wait_until_said(trainer, "waiting for peers: stage")
                with running(*serve, "--stage", 1) as late:
                    output, errors = trainer.communicate(timeout=120)
                    assert trainer.returncode == 0, errors
                    assert json.loads(output.splitlines()[-1])["steps"] == 6
                    for peer in (early, late):
                        said, _ = peer.communicate(timeout=60)
                        assert peer.returncode == 0 and "the run is done" in said
    assert directory.returncode == 0


def test_killed_trainer_is_resumed_with_the_same_peers(exact: Path, tmp_path: Path) -> None:
    """A new incarnation: the peers wait for it, and void what they did for the earlier one."""
    run_dir = tmp_path / "run"
    with running("bootstrap", "--run", "exact", "--json", "--listen", "127.0.0.1") as directory:
        join = json.loads(directory.stdout.readline())["join"]
        line = swarmrt("invite", exact, "--at", join, "--uses", 2).stdout.strip()
        serve = ["serve", line, "--wait", "--threads", "1"]
        train = ["train", exact, "--join", join, "--set", "stages.count=2"]
        with running(*serve, "--stage", 0) as first, running(*serve, "--stage", 1) as second:
            with running(*train, "--run-dir", run_dir) as trainer:
                for line in trainer.stdout:
                    if line.startswith("step    11/"):
                        trainer.kill()
                        break
            with running(*train, "--resume", run_dir, "--json") as again:
                output, errors = again.communicate(timeout=120)
                assert again.returncode == 0, errors
                assert json.loads(output.splitlines()[-1])["steps"] == 20
            for peer in (first, second):
                said, _ = peer.communicate(timeout=60)
                assert peer.returncode == 0 and "the run is done" in said
    assert difference_to_reference(run_dir, exact, tmp_path) < 1e-9


def test_peers_that_were_all_stopped_go_on_from_what_they_have_left(
    exact: Path, tmp_path: Path
) -> None:
    """The trainer is killed before its first checkpoint, then both peers are stopped: nothing of
    the weights is anywhere but in their --state."""
    run_dir, states = tmp_path / "run", tmp_path / "states"
    with running("bootstrap", "--run", "exact", "--json", "--listen", "127.0.0.1") as directory:
        join = json.loads(directory.stdout.readline())["join"]
        line = swarmrt("invite", exact, "--at", join, "--uses", 2).stdout.strip()
        serve = ["serve", line, "--wait", "--threads", "1", "--state", states, "--stage"]
        train = ["train", exact, "--join", join, "--set", "stages.count=2"]
        train += ["--set", "checkpoint.every_steps=0"]
        with running(*serve, 0) as first, running(*serve, 1) as second:
            with running(*train, "--run-dir", run_dir) as trainer:
                for line in trainer.stdout:
                    if line.startswith("step    11/"):
                        trainer.kill()
                        break
            for peer in (first, second):
                peer.terminate()
                said, _ = peer.communicate(timeout=60)
                assert peer.returncode == 0 and "is left in" in said
        assert not list(run_dir.glob("checkpoints/step-*"))
        with running(*serve, 0) as first, running(*serve, 1) as second:
            with running(*train, "--resume", run_dir, "--json") as again:
                output, errors = again.communicate(timeout=120)
                assert again.returncode == 0, errors
            for peer in (first, second):
                said, _ = peer.communicate(timeout=60)
                assert peer.returncode == 0 and "is taken up from" in said
    made = [
        entry["version"] for entry in read_entries(run_dir / "metrics.jsonl") if "digests" in entry
    ]
    assert made.count(1) == 1, "it did not begin anew"
    assert difference_to_reference(run_dir, exact, tmp_path) < 1e-9


def test_nothing_outlives_a_killed_launcher(exact: Path, tmp_path: Path, temporary: Path) -> None:
    run_dir = tmp_path / "run"
    command = [*COMMAND, "local", str(exact), "--run-dir", str(run_dir), "--steps", "100000"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment(), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step"):
            process.kill()
            break
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while our_processes(str(run_dir)) or our_sockets(temporary):
        assert time.monotonic() < deadline, (our_processes(str(run_dir)), our_sockets(temporary))
        time.sleep(0.2)


def test_export_loads_in_transformers_and_generates(exact: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    overrides = ["--set", "model.dtype=float32", "--set", "model.dropout=0"]
    local(exact, "--steps", 3, "--run-dir", run_dir, *overrides)
    done = swarmrt("export", run_dir, "--hf", tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    script = (
        "import torch, transformers\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained('hf')\n"
        "assert torch.isfinite(model(torch.arange(16)[None]).logits).all()\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    done = swarmrt("generate", run_dir, "--prompt", "import os", "--tokens", 20)
    assert done.returncode == 0 and done.stdout.startswith("import os"), done.stderr
