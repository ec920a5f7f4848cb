"""A dishonest member among six, in real processes: the run goes on, and ends with its weights.

All habits: `python -m pytest -m "slow or swarm" tests/swarms/test_dishonest.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swarmrt import lab
from swarmrt.ids import PeerId, seat_of
from tests.processes import PATIENCE_S, ROOT, environment
from tests.swarms.dishonest import HABITS, NOT_FINITE
from tests.swarms.test_end_to_end import check_logs, difference_to_reference
from tests.swarms.test_end_to_end import exact as exact

pytestmark = pytest.mark.swarm
LAST = 2  # the stage that claims
IN_THE_SUITE = {"negative tokens", "takes all and does nothing"}
EXPELLED = {"negative tokens", "huge tokens", "another digest"}
HARMLESS = {"a beacon from nowhere"}  # nobody believes it, and its work is good
# Who spoils its gradients, and has none in a step, may take part in its commit: no harm is done.


@contextmanager
def dishonest(swarm: lab.LocalSwarm, habit: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A peer of the last stage with that habit, until it ends by itself or the block does."""
    serve = ["serve", "--stage", str(LAST), "--wait", "--threads", "1", "--memory", "none"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.swarms.dishonest", habit, *serve, "--with-parent",
             "--papers-on-stdin", "--listen", "/ip4/127.0.0.1/tcp/0"],
            stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=ROOT,
            env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT)])},
        )  # fmt: skip
    assert process.stdin is not None
    try:
        papers = {"join_line": str(swarm.join_line)}
        process.stdin.write(json.dumps(papers).encode() + b"\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize(
    "habit",
    [
        habit if habit in IN_THE_SUITE else pytest.param(habit, marks=pytest.mark.slow)
        for habit in HABITS
    ],
)
def test_one_of_six_is_dishonest(exact: Path, tmp_path: Path, habit: str) -> None:
    """It comes in the midst of a run, which is stopped a few steps after it was found out."""
    run_dir, log = tmp_path / "run", tmp_path / "dishonest.log"
    overrides = {"run.steps": 1000, "batch.microbatches": 40}
    with lab.LocalSwarm(exact, [2, 2, 1], run_dir=run_dir, overrides=overrides, threads=1) as swarm:
        swarm.wait(step=1)
        with dishonest(swarm, habit, log) as liar:
            peer_id = _wait_for_line(swarm, log, "serves stage 2").split()[1]
            swarm.wait_until(
                lambda: _is_found_out(swarm, peer_id, habit), f"a word of {peer_id}", PATIENCE_S
            )
            swarm.wait(step=swarm.version + 2)
            swarm.trainer.terminate()
            swarm.finish()
            print(f"{habit}: exit code {liar.poll()}, step {swarm.version}")
    print("\n".join(_said_of(swarm, peer_id)))
    audit = swarm.audit()
    assert audit.steps == swarm.version and audit.passed, audit.violations
    check_logs(run_dir)
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    difference = difference_to_reference(run_dir, exact, tmp_path, *settings, steps=swarm.version)
    assert difference < 1e-9
    newest = swarm.members(LAST)
    assert seat_of(PeerId(peer_id), LAST) not in newest or habit in {*HARMLESS, NOT_FINITE}, newest


def _said_of(swarm: lab.LocalSwarm, peer_id: str) -> list[str]:
    return [line for line in swarm.trainer.output().splitlines() if peer_id in line]


def _is_found_out(swarm: lab.LocalSwarm, peer_id: str, habit: str) -> bool:
    """By the word that is the last one on such a habit."""
    if habit in HARMLESS:
        return seat_of(PeerId(peer_id), LAST) in swarm.members(LAST)
    word = "EXPELLED" if habit in EXPELLED else "without"
    return any(word in line for line in _said_of(swarm, peer_id))


def _wait_for_line(swarm: lab.LocalSwarm, log: Path, text: str) -> str:
    def found() -> list[str]:
        said = log.read_text(errors="replace").splitlines()
        return [line for line in said if text in line]

    swarm.wait_until(lambda: bool(found()), text, PATIENCE_S)
    return found()[0]
