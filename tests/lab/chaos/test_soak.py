"""Long runs of real processes under churn: `scripts/test -m slow`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarmrt import lab
from tests.processes import our_processes, swarmrt
from tests.swarms.test_end_to_end import EXACT, largest_difference

pytestmark = [pytest.mark.swarm, pytest.mark.slow]


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_thousand_steps_under_churn_leak_nothing(tmp_path: Path) -> None:
    """Of those that stay: memory and open files are what they were after a hundred steps."""
    config = tmp_path / "soak.toml"
    config.write_text(EXACT.replace("steps = 20", "steps = 1000"))
    run_dir = tmp_path / "run"
    with lab.LocalSwarm(config, replicas=[2, 2, 2], run_dir=run_dir, threads=1) as swarm:
        swarm.wait(step=100, timeout_s=600)
        staying = {peer.name: peer.pid for peer in swarm.peers() if peer.name.endswith("-0")}
        staying["trainer"] = swarm.trainer.pid
        before = {name: (resident_bytes(pid), open_files(pid)) for name, pid in staying.items()}
        for number, step in enumerate(range(150, 951, 50)):
            swarm.wait(step, timeout_s=600)
            stage = number % 3
            others = [peer for peer in swarm.peers(stage) if peer.name not in staying]
            if others:
                (others[0].kill if number % 2 else others[0].terminate)()
            swarm.spawn(stage)
        swarm.wait(step=980, timeout_s=600)
        for name, pid in staying.items():
            size, files = before[name]
            assert resident_bytes(pid) < size + (64 << 20), name
            assert open_files(pid) < files + 16, name
        swarm.finish()
    assert swarm.audit().passed
    assert our_processes(str(run_dir)) == []


@pytest.mark.parametrize("seed", range(10))
def test_chaos(seed: int, tmp_path: Path) -> None:
    """Many faults of all kinds in 60 steps: nothing lost, nothing twice, the same weights."""
    config = tmp_path / "chaos.toml"
    config.write_text(EXACT)
    overrides = ["--set", "batch.microbatches=24", "--set", "run.steps=60"]
    run_dir = tmp_path / "run"
    done = swarmrt(
        *("chaos", config, "--seed", seed, "--steps", 60, "--every", 2, "--replicas", "2,3,2"),
        *("--run-dir", run_dir, *overrides),
        timeout_s=900,
    )
    print(done.stdout)  # with -rP: what was done to the swarm, and what came of it
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every gradient counted exactly once; 0 digest mismatches" in done.stdout
    ours, alone = tmp_path / "swarm.safetensors", tmp_path / "alone.safetensors"
    assert swarmrt("export", run_dir, "--out", ours).returncode == 0
    assert swarmrt("reference", config, "--steps", 60, "--out", alone, *overrides).returncode == 0
    assert largest_difference(ours, alone) < 1e-9
