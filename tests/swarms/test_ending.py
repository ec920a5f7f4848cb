"""A peer that ends with an error says why to its owner and to the trainer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from swarmrt import lab
from tests.lab.chaos.test_lab import CONFIG

pytestmark = pytest.mark.swarm


def daemon_of(folder: Path) -> int:
    """The process id of the libp2p daemon of the peer in this folder."""
    identity = f"-id={folder / 'identity'}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"p2pd") and identity in words:
                return int(entry.name)
    raise AssertionError(f"no daemon of {folder}")


def test_a_peer_that_ends_says_why_to_its_owner_and_to_the_trainer(tmp_path: Path) -> None:
    config, run_dir = tmp_path / "lab.toml", tmp_path / "run"
    config.write_text(CONFIG)
    with lab.LocalSwarm(config, replicas=[1, 2], run_dir=run_dir, threads=1) as swarm:
        swarm.wait(step=2)
        peer = swarm.peers(stage=1)[0]
        os.kill(daemon_of(peer.folder), signal.SIGKILL)
        swarm.wait_until(lambda: not peer.is_alive, "the peer to end", 60)
        swarm.wait(swarm.version + 2)
        why = "the libp2p daemon of this process is gone"
        assert peer.exit_code == 1 and why in peer.last_lines()
        assert f"{peer.peer_id}: it has ended: {why}" in swarm.trainer.output()
