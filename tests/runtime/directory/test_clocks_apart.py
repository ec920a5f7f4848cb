"""A machine whose clock is hours off is told so."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from swarmrt.runtime.directory.network import open_network
from swarmrt.trust.joining_line import JoinLine
from tests.papers import Owner
from tests.processes import PATIENCE_S, environment
from tests.runtime.directory.test_directory import published
from tests.runtime.links.test_links import run

SERVE = """
import sys, time
true, ahead_s = time.time, float(sys.argv.pop(1))
time.time = lambda: true() + ahead_s
from swarmrt.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("is_private", "ahead_s", "words"),
    [(True, 7200, "2.0 hours ahead of"), (False, 7200, "2.0 hours ahead of"),
     (True, -300, "5 minutes behind")],
)  # fmt: skip
def test_a_wrong_clock_is_said_to_be_wrong(is_private: bool, ahead_s: float, words: str) -> None:
    async def story() -> None:
        owner = Owner()
        owner.invite = owner.signer.invite(9, time.time() + 86400)
        async with open_network([], papers=owner.node(), private=is_private) as network:
            await network.directory.publish_run(owner.run, *published(owner, network), ttl_s=30)
            at = tuple(network.daemon.addresses())
            line = str(JoinLine(owner.run, at, owner.invite if is_private else None))
            serve = [sys.executable, "-c", SERVE, str(ahead_s), "serve", line, "--stage", "0"]
            done = await asyncio.to_thread(
                subprocess.run, serve, capture_output=True, text=True, timeout=PATIENCE_S,
                env=environment(),
            )  # fmt: skip
            assert done.returncode == 2, done
            last = done.stderr.splitlines()[-1]
            assert f"the clock of this machine is {words} that of the directory" in last, done

    run(story())
