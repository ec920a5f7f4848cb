"""Who comes into a run, with the commands that its owner and its volunteers type."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import Command, running, swarmrt

pytestmark = pytest.mark.swarm
PATIENCE_S = 60.0

LONG = """
[run]
name = "long"
steps = 100000
[model]
layers = 2
width = 32
heads = 2
sequence = 16
[stages]
count = 2
[batch]
microbatch = 2
microbatches = 64
[checkpoint]
every_steps = 0
"""


class Home:
    """A user's own folders, as on a machine of their own."""

    def __init__(self, folder: Path) -> None:
        self.env = {
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_DATA_HOME": str(folder / "data"),
        }
        self.data = folder / "data"

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return swarmrt(*arguments, env=self.env)

    @contextmanager
    def running(self, *arguments: object, log: Path) -> Iterator[Command]:
        """A process whose output goes to a file; SIGTERM at the end."""
        with log.open("wb") as output, running(*arguments, env=self.env, output=output) as command:
            yield command


def wait_for(log: Path, text: str) -> str:
    """Return what was printed, once the text is in it."""
    deadline = time.monotonic() + PATIENCE_S
    while text not in (said := log.read_text(errors="replace")):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    return said


def join_line(log: Path) -> str:
    said = wait_for(log, "--stage N")
    return next(word for word in said.split("'") if word.startswith("swarmrt:"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "long.toml"
    path.write_text(LONG)
    return path


def test_owner_invites_sees_and_turns_out(config: Path, tmp_path: Path) -> None:
    """From the line that `train` prints to a revoked peer whose work others do."""
    owner, alice, bob, mallory = (Home(tmp_path / who) for who in ("owner", "alice", "bob", "eve"))
    run_dir, said = tmp_path / "run", tmp_path / "train.log"
    with owner.running("train", config, "--run-dir", run_dir, log=said) as trainer:
        line = join_line(said)
        bare = line.partition("#")[0]
        uninvited = mallory.run("serve", bare, "--stage", 0)
        assert uninvited.returncode == 2, uninvited.stderr
        assert "Traceback" not in uninvited.stderr
        with (
            alice.running("serve", line, "--stage", 0, log=tmp_path / "0.log"),
            alice.running("serve", line, "--stage", 1, log=tmp_path / "1.log"),
        ):
            wait_for(said, "1/100000")
            for_bob = owner.run("invite", run_dir, "--stage", 1, "--note", "bob").stdout.strip()
            with bob.running("serve", for_bob, "--stage", 1, log=tmp_path / "2.log") as his:
                members = ""
                deadline = time.monotonic() + PATIENCE_S
                while "(bob)" not in members or " 0 of" in members.split("(bob)")[0][-90:]:
                    assert time.monotonic() < deadline, members
                    members = owner.run("members", run_dir).stdout
                second = mallory.run("serve", for_bob, "--stage", 1)
                assert second.returncode == 2 and "was for 1 peers" in second.stderr
                turned_out = owner.run("revoke", run_dir, "bob", "--why", "thank you")
                assert turned_out.returncode == 0 and "revoked: Qm" in turned_out.stdout
                his.wait(PATIENCE_S)
                assert his.returncode == 2
                assert "thank you" in (tmp_path / "2.log").read_text()
            again = bob.run("serve", "--stage", 1)
            assert again.returncode == 2 and "is your invitation still good" in again.stderr
            at = said.read_text().count("step ")
            deadline = time.monotonic() + PATIENCE_S
            while said.read_text().count("step ") < at + 3:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            trainer.terminate()  # the others are told, and need not wait for somebody to take over
            trainer.wait(PATIENCE_S)
        listed = owner.run("members", run_dir).stdout
        assert "revoked: thank you" in listed and listed.count("(join line)") == 2


def test_machine_that_has_joined_needs_no_line_again(config: Path, tmp_path: Path) -> None:
    owner, alice = Home(tmp_path / "owner"), Home(tmp_path / "alice")
    said, first = tmp_path / "train.log", tmp_path / "first.log"
    with owner.running("train", config, "--run-dir", tmp_path / "run", log=said):
        line = join_line(said)
        with alice.running("serve", line, "--stage", 0, log=first):
            wait_for(said, "stage 0: Qm")
        kept = next((alice.data / "swarmrt" / "runs").iterdir())
        assert all(path.stat().st_mode & 0o077 == 0 for path in kept.glob("[jm]*"))
        with alice.running("serve", "--stage", 0, log=tmp_path / "second.log"):
            wait_for(tmp_path / "second.log", "serves stage 0")
            assert first.read_text().split()[1] == (tmp_path / "second.log").read_text().split()[1]
            wait_for(said, "ready")


def test_trainer_on_another_machine_signs_for_the_owner(config: Path, tmp_path: Path) -> None:
    owner, rented, alice = (Home(tmp_path / who) for who in ("owner", "rented", "alice"))
    key = rented.run("owner", "show").stdout.split("public key")[1].split()[0]
    mine = owner.run("owner", "show").stdout.split()[1]
    delegation, said = tmp_path / "delegation", tmp_path / "train.log"
    delegation.write_text(owner.run("owner", "delegate", "--to", key, "--run", "long").stdout)
    train = ["train", config, "--run-dir", tmp_path / "run", "--delegation", delegation]
    with rented.running(*train, log=said):
        line = join_line(said)
        assert f"long@{mine}" in line
        with alice.running("serve", line, "--stage", 0, log=tmp_path / "0.log"):
            wait_for(said, "stage 0: Qm")


def test_open_run_takes_whoever_comes_and_says_what_that_means(
    config: Path, tmp_path: Path
) -> None:
    owner, anybody = Home(tmp_path / "owner"), Home(tmp_path / "anybody")
    said = tmp_path / "train.log"
    train = ["train", config, "--run-dir", tmp_path / "run", "--set", "run.access=open"]
    with owner.running(*train, log=said):
        line = join_line(said)
        assert "#" not in line and "anybody may come in" in wait_for(said, "work is not checked")
        with anybody.running("serve", line, "--stage", 0, log=tmp_path / "0.log"):
            wait_for(said, "stage 0: Qm")


def test_bootstrap_of_a_private_run_belongs_to_it(config: Path) -> None:
    with running("bootstrap", "--run", "long", "--json") as directory:
        at = directory.stdout.readline().split('"')[3]
        refused = swarmrt("train", config, "--join", at, "--set", "run.name=other")
        assert refused.returncode == 2
        assert "no directory of run other@" in refused.stderr
