"""A later trainer takes a run over: an earlier one that comes back ends, and peers follow."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swarmrt.runtime.access.identity import open_identity
from tests.cli.keys.test_access import Home, join_line, wait_for
from tests.cli.keys.test_access import config as config
from tests.cli.test_waiting import free_port
from tests.processes import PATIENCE_S, Command

pytestmark = pytest.mark.swarm


class Swarm:
    """A trainer and two peers, at a directory node of its own; `again` is a trainer with a copy of
    the run's folder."""

    def __init__(self, config: Path, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._owner, self._alice = Home(folder / "owner"), Home(folder / "alice")
        self.said = [folder / name for name in ("1.log", "2.log")]
        self.peers = [folder / f"stage-{stage}.log" for stage in (0, 1)]
        key, self._listen = folder / "directory", f"/ip4/127.0.0.1/tcp/{free_port()}"
        self._join = f"{self._listen}/p2p/{open_identity(key).peer_id}"
        self._key = key
        self.first_peer: Command

    @contextmanager
    def started(self) -> Iterator[Command]:
        """The first trainer, at work."""
        node = ("bootstrap", "--run", "long", "--listen", self._listen, "--identity", self._key)
        first = ("train", self._config, "--join", self._join, "--run-dir", self._folder / "run")
        with self._owner.running(*node, log=self._folder / "node.log"):
            wait_for(self._folder / "node.log", "/p2p/")
            with self._owner.running(*first, log=self.said[0]) as trainer:
                line = join_line(self.said[0])
                serve = ("serve", line, "--stage")
                with (
                    self._alice.running(*serve, 0, log=self.peers[0]) as self.first_peer,
                    self._alice.running(*serve, 1, log=self.peers[1]),
                ):
                    wait_for(self.said[0], "1/100000")
                    yield trainer

    @contextmanager
    def again(self, *, forgets: bool) -> Iterator[None]:
        """The later trainer, at work; one that forgets has another identity."""
        copy = self._folder / "copy"
        shutil.copytree(self._folder / "run", copy)
        if forgets:
            (copy / "identity").unlink()
        later = ("train", self._config, "--join", self._join, "--resume", copy)
        with self._owner.running(*later, log=self.said[1]) as trainer:
            wait_for(self.said[1], "held-out")
            yield
            number = self.said[1].read_text().count("held-out")
            wait_for(self.said[1], f"step {20 * (number + 1):>5}  held-out")
            trainer.terminate()  # the peers are told, and need not wait for somebody
            trainer.wait(PATIENCE_S)


def test_trainer_that_comes_back_when_a_later_one_is_at_work_ends(
    config: Path, tmp_path: Path
) -> None:
    """The old trainer's machine stood still, and the run goes on elsewhere, from a copy of the
    folder."""
    swarm = Swarm(config, tmp_path)
    with swarm.started() as earlier:
        os.kill(earlier.pid, signal.SIGSTOP)
        try:
            with swarm.again(forgets=False):
                os.kill(earlier.pid, signal.SIGCONT)
                assert earlier.wait(PATIENCE_S) == 1
                said = swarm.said[0].read_text()
                assert "has been taken over by a later trainer" in said and "epoch 2" in said
                assert "Traceback" not in said
        finally:
            if earlier.poll() is None:
                os.kill(earlier.pid, signal.SIGCONT)


@pytest.mark.slow
def test_peers_follow_a_trainer_with_another_identity(config: Path, tmp_path: Path) -> None:
    """It goes on from a copy of the folder without the key. Run by
    `scripts/test -m slow tests/swarms/test_taken_over.py`."""
    swarm = Swarm(config, tmp_path)
    with swarm.started() as earlier:
        os.kill(swarm.first_peer.pid, signal.SIGSTOP)  # so that the step is not finished
        earlier.terminate()
        time.sleep(1.0)  # two signals at once would be one
        earlier.terminate()  # it leaves at once, and the peers keep their state
        assert earlier.wait(PATIENCE_S) == 0
        os.kill(swarm.first_peer.pid, signal.SIGCONT)
        with swarm.again(forgets=True):
            for log in swarm.peers:
                assert "has another trainer now; it is looked up again" in log.read_text()
