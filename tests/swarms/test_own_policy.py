"""A swarm of real processes that is wired by a policy of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import swarmrt

pytestmark = pytest.mark.swarm

POLICY = """
import pathlib

class Alone:
    def __init__(self, estimates, rng):
        self._seats = []

    def add(self, seat):
        self._seats.append(seat)

    def remove(self, seat):
        self._seats.remove(seat)

    def choose(self, now):
        chosen = min(self._seats, default=None)
        if chosen is not None:
            (pathlib.Path(__file__).parent / f"chosen {chosen.replace('/', ' ')}").touch()
        return chosen
"""


def test_local_swarm_is_wired_by_a_class_in_the_working_folder(tmp_path: Path) -> None:
    """A policy of the user's gives all work to one replica of each stage."""
    (tmp_path / "own_policy.py").write_text(POLICY)
    source = tmp_path / "run.toml"
    source.write_text(
        "[run]\nsteps = 2\n[model]\nlayers = 2\nsequence = 8\nwidth = 16\n[stages]\n"
        'layers = [1, 1]\n[batch]\nmicrobatches = 4\n[wiring]\npolicy = "own_policy:Alone"\n'
    )
    done = swarmrt(
        "local", source, "--replicas", "2,2", "--run-dir", tmp_path / "run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    chosen = {path.name.rpartition(" ")[2] for path in tmp_path.glob("chosen *")}
    assert chosen == {"0", "1"}, "the trainer's and the first stage's"


def test_a_class_that_is_not_there_is_said_before_anything_begins(tmp_path: Path) -> None:
    source = tmp_path / "run.toml"
    source.write_text("")
    done = swarmrt("local", source, "--set", "wiring.policy=no_such_module:Policy", cwd=tmp_path)
    assert done.returncode == 2
    assert "wiring.policy no_such_module:Policy: cannot import no_such_module" in done.stderr
