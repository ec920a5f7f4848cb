"""A process whose libp2p daemon dies goes on; one that ends says why to its owner and the run."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from swarmrt import lab
from swarmrt.lab.swarm.part import Part
from tests.lab.chaos.test_lab import CONFIG
from tests.processes import daemon_with

pytestmark = pytest.mark.swarm

GONE = "the libp2p daemon of this process is gone"
BACK = "the libp2p daemon is up again"


def kill_daemon(part: Part) -> None:
    os.kill(daemon_with(f"-id={part._identity}"), signal.SIGKILL)


def said(part: Part, words: str) -> bool:
    return words in part.output()


def swarm_of(tmp_path: Path, replicas: list[int]) -> lab.LocalSwarm:
    config = tmp_path / "lab.toml"
    config.write_text(CONFIG)
    return lab.LocalSwarm(config, replicas=replicas, run_dir=tmp_path / "run", threads=1)


def test_a_peer_and_a_trainer_whose_daemons_die_go_on_and_are_found_by_newcomers(
    tmp_path: Path,
) -> None:
    """The newcomer gets its state from the one replica of its stage."""
    with swarm_of(tmp_path, [1, 2]) as swarm:
        swarm.wait(step=2)
        [peer], members = swarm.peers(stage=0), swarm.members(0) + swarm.members(1)
        for part in (peer, swarm.trainer):
            kill_daemon(part)
        swarm.wait(swarm.version + 2)
        for part in (peer, swarm.trainer):
            swarm.wait_until(partial(said, part, BACK), "the daemon", 60)
            assert GONE in part.output()
        assert swarm.members(0) + swarm.members(1) == members
        swarm.wait_for_member(swarm.spawn(stage=0))
        assert peer.is_alive and peer.seat in swarm.members(0)
        swarm.trainer.terminate()
        swarm.finish()
        assert [each.exit_code for each in swarm.ended_peers()] == [0, 0, 0, 0]
    audit = swarm.audit()
    assert audit.passed and not audit.unchecked, audit.lines()


@pytest.mark.slow
def test_a_peer_whose_daemon_cannot_be_started_again_drains_and_says_why(tmp_path: Path) -> None:
    """pytest -m slow tests/swarms/test_ending.py: a minute and a half.

    The daemon cannot read its key any more. It is tried for a minute; the other replica takes over.
    """
    with swarm_of(tmp_path, [1, 2]) as swarm:
        swarm.wait(step=2)
        peer = swarm.peers(stage=1)[0]
        peer._identity.write_bytes(b"not a key")
        kill_daemon(peer)
        swarm.wait_until(lambda: not peer.is_alive, "the peer to leave", 120)
        swarm.wait(swarm.version + 2)
        why = f"{GONE}, and could not be started again within 60 s"
        assert peer.exit_code == 1 and why in peer.last_lines()
        assert swarm.members(1) == (swarm.peers(stage=1)[0].seat,)
        swarm.trainer.terminate()
        swarm.finish()
    audit = swarm.audit()
    assert audit.passed, audit.lines()
