"""Real swarms whose replicas make steps of their own: killed, joined, resumed, and audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swarmrt import lab
from tests.processes import local, swarmrt
from tests.swarms.test_end_to_end import check_logs

pytestmark = pytest.mark.swarm

CONFIG = """
[run]
name = "apart"
steps = 30
[model]
layers = 4
width = 32
sequence = 32
[stages]
count = 2
[batch]
microbatch = 2
microbatches = 12
[optimizer]
warmup_steps = 4
[evaluation]
every_steps = 10
microbatches = 2
[checkpoint]
every_steps = 10
[averaging]
local_batch = 2
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "apart.toml"
    path.write_text(CONFIG)
    return path


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return what is written of each step."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "digests" in line]


def test_replicas_that_never_wait_survive_a_kill_and_a_newcomer(
    config: Path, tmp_path: Path
) -> None:
    """Nothing that was granted is lost, all replicas of a stage agree on each version, and the
    loss falls."""
    run_dir = tmp_path / "run"
    overrides = {"averaging.strategy": "async", "run.steps": 1000}
    with lab.LocalSwarm(config, (2, 2), run_dir=run_dir, overrides=overrides, threads=1) as swarm:
        swarm.wait(step=8)
        swarm.peers(1)[0].kill()
        swarm.wait(step=swarm.version + 5)
        newcomer = swarm.spawn(1)
        swarm.wait_for_member(newcomer)
        swarm.wait(step=swarm.version + 8)
        swarm.trainer.terminate()
        swarm.finish()
    audit = swarm.audit()
    assert audit.passed and audit.rollbacks == 0, audit.lines()
    assert [account.lost for account in audit.accounts] == [0, 0]
    steps = metrics(run_dir)
    assert all(line["digests_equal"] for line in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert sum(work["steps"] for line in steps for work in line.get("local", ())) >= 2 * len(steps)
    check_logs(run_dir)


def test_diloco_goes_on_from_its_checkpoint(config: Path, tmp_path: Path) -> None:
    """The anchors and outer momentum of a run are in the checkpoint; the export has the anchors."""
    run_dir = tmp_path / "run"
    diloco = ("--set", "averaging.strategy=diloco", "--set", "averaging.sync_steps=3")
    first = local(config, "--replicas", "2,1", "--run-dir", run_dir, "--steps", "10", *diloco)
    assert first["replica_digests_equal"] is True and first["steps"] == 10
    again = ("--resume", run_dir, "--steps", "20", *diloco)
    second = local(config, "--replicas", "2,1", *again)
    assert second["replica_digests_equal"] is True and second["steps"] == 20
    assert second["loss_last"] < second["loss_first"]
    audited = swarmrt("audit", run_dir)
    assert audited.returncode == 0, audited.stdout
    exported = swarmrt("export", run_dir, "--out", tmp_path / "weights.safetensors")
    assert exported.returncode == 0, exported.stderr


def test_replicas_with_a_momentum_each_survive_a_kill_and_a_newcomer(
    config: Path, tmp_path: Path
) -> None:
    """They commit together and agree to the bit on each version, though nobody has another's
    momentum."""
    run_dir = tmp_path / "run"
    overrides = {
        "averaging.strategy": "demo",
        "averaging.chunk": 64,
        "averaging.top_k": 4,
        "averaging.beta": 0.9,
        "optimizer.kind": "sgd",
        "optimizer.clip_norm": 0,
        "optimizer.lr": 0.003,
        "run.steps": 1000,
    }
    with lab.LocalSwarm(config, (2, 2), run_dir=run_dir, overrides=overrides, threads=1) as swarm:
        swarm.wait(step=8)
        swarm.peers(1)[0].kill()
        swarm.wait(step=swarm.version + 5)
        newcomer = swarm.spawn(1)
        swarm.wait_for_member(newcomer)
        swarm.wait(step=swarm.version + 8)
        swarm.trainer.terminate()
        swarm.finish()
    audit = swarm.audit()
    assert audit.passed and audit.rollbacks == 0, audit.lines()
    steps = metrics(run_dir)
    assert all(line["digests_equal"] for line in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]
    check_logs(run_dir)
