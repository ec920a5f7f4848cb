"""Addresses of a machine that change while its daemon runs, as those of a laptop do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import PATIENCE_S, ROOT

pytestmark = pytest.mark.swarm

# In a network of its own, where a machine with one address gets another one.
MOVES = """
import asyncio, subprocess
from swarmrt.runtime.daemon.daemon import Daemon
from swarmrt.runtime.reach.place import Place

async def main():
    daemon = await Daemon.start(None, Place(("0.0.0.0",)), [])
    try:
        before = daemon.hosts()
        subprocess.run("ip addr add 10.1.1.2/24 dev lo; ip addr del 10.1.0.1/24 dev lo",
                       shell=True, check=True)
        async with asyncio.timeout(60):
            while daemon.hosts() != ["10.1.1.2"]:
                await asyncio.sleep(0.2)
                await daemon.look_again()
        print(before, daemon.hosts())
    finally:
        await daemon.close()

asyncio.run(main())
"""
SETTING = "ip link set lo up && ip addr add 10.1.0.1/24 dev lo"


def in_a_network_of_its_own(command: str, *words: str) -> subprocess.CompletedProcess[str]:
    shell = ["unshare", "--map-root-user", "--net", "sh", "-c", command, "sh", *words]
    return subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)


def test_an_address_that_a_machine_gets_later_is_told() -> None:
    try:
        can = in_a_network_of_its_own(SETTING)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if can.returncode:
        pytest.skip(f"no network can be made here: {can.stderr.strip()}")
    done = in_a_network_of_its_own(f'{SETTING} && exec "$@"', sys.executable, "-c", MOVES)
    assert done.stdout == "['10.1.0.1'] ['10.1.1.2']\n", done.stderr
