"""Serving and training before there is anybody to join, as users do it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from swarmrt.runtime.access.identity import open_identity
from tests.processes import PATIENCE_S, Command, our_processes, patience, running, swarmrt

pytestmark = pytest.mark.swarm


def wait_for_line(process: Command, text: str) -> None:
    """A line with this text on standard output. Fails when the process ends without it."""
    with patience(process):
        assert any(text in line for line in process.stdout), f"it never said {text!r}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_everybody_waits_for_the_directory_that_comes_last(tmp_path: Path) -> None:
    key, port = tmp_path / "directory", free_port()
    listen = f"/ip4/127.0.0.1/tcp/{port}"
    join = f"{listen}/p2p/{open_identity(key).peer_id}"
    run = tmp_path / "run.toml"
    run.write_text('[run]\nname = "early"\nsteps = 2\n[stages]\ncount = 1\n')
    line = swarmrt("invite", run, "--at", join).stdout.strip()
    serve = ["serve", line, "--stage", 0, "--wait", "--threads", "1"]
    train = ["train", run, "--join", join, "--wait", "--run-dir", tmp_path / "run"]
    with running(*serve) as peer, running(*train) as trainer:
        for process in (peer, trainer):
            wait_for_line(process, "waiting: no directory")
        with running("bootstrap", "--run", "early", "--listen", listen, "--identity", key):
            wait_for_line(peer, "serves stage 0")
            assert trainer.wait(PATIENCE_S) == 0
            assert peer.wait(PATIENCE_S) == 0
    assert our_processes(str(key)) == []


def test_without_waiting_a_dead_address_is_an_error(tmp_path: Path) -> None:
    join = f"/ip4/127.0.0.1/tcp/9/p2p/{open_identity(tmp_path / 'nobody').peer_id}"
    run = tmp_path / "run.toml"
    run.write_text('[run]\nname = "early"\nsteps = 2\n[stages]\ncount = 1\n')
    line = swarmrt("invite", run, "--at", join).stdout.strip()
    with running("serve", line, "--stage", 0) as peer:
        assert peer.wait(PATIENCE_S) == 2
        said = peer.stderr.read()
        assert "no directory" in said and f"answers at {join}" in said
