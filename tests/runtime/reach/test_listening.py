"""Ports that were asked for and that somebody else has: one sentence, and no traceback."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from swarmrt.errors import UsageError
from swarmrt.runtime.access.identity import open_identity
from swarmrt.runtime.reach.listening import Listening
from swarmrt.runtime.reach.place import Place, Ports
from tests.processes import PATIENCE_S, Command, patience, running, swarmrt

HERE = "127.0.0.1"
RUN = '[run]\nname = "ports"\nsteps = 2\n[stages]\ncount = 1\n'
KINDS = {"libp2p": socket.SOCK_STREAM, "direct": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RUN)
    return path


def three_ports() -> dict[str, int]:
    """Ports that are free, by what they are for."""
    probes = {name: socket.socket(socket.AF_INET, kind) for name, kind in KINDS.items()}
    for probe in probes.values():
        probe.bind((HERE, 0))
    ports = {name: int(probe.getsockname()[1]) for name, probe in probes.items()}
    for probe in probes.values():
        probe.close()
    return ports


def option(ports: dict[str, int]) -> str:
    return ",".join(map(str, ports.values()))


@pytest.mark.parametrize("which", KINDS)
def test_a_port_that_is_taken_is_named_at_once(which: str, config: Path, tmp_path: Path) -> None:
    """A peer says so before it looks for a directory, of which there is none."""
    ports = three_ports()
    nobody = f"/ip4/{HERE}/tcp/9/p2p/{open_identity(tmp_path / 'nobody').peer_id}"
    line = swarmrt("invite", config, "--at", nobody).stdout.strip()
    where = ["--listen", HERE, "--port", option(ports)]
    with socket.socket(socket.AF_INET, KINDS[which]) as other:
        other.bind((HERE, ports[which]))
        if KINDS[which] == socket.SOCK_STREAM:
            other.listen()
        train = swarmrt("train", config, *where, "--run-dir", tmp_path / "run")
        serve = swarmrt("serve", line, "--stage", 0, *where)
    kind = "UDP" if which == "udp" else "TCP"
    for done in (train, serve):
        assert done.returncode == 2 and "Traceback" not in done.stderr
        *_, last = done.stderr.splitlines()
        assert last.startswith(f"swarmrt: cannot listen at {HERE}:{ports[which]} ({kind})"), last
        assert "choose another --port, or --listen" in last


def test_of_two_trainers_that_start_at_once_at_the_same_ports_one_goes_on(
    config: Path, tmp_path: Path
) -> None:
    where = ["--listen", HERE, "--port", option(three_ports())]

    def train(name: str) -> list[object]:
        return ["train", config, "--set", f"run.name={name}", *where, "--run-dir", tmp_path / name]

    with running(*train("one")) as one, running(*train("two")) as two:
        loser = first_that_ends((one, two))
        [winner] = {one, two} - {loser}
        with patience(winner):
            assert any("swarmrt serve" in line for line in winner.stdout)
        said = loser.stderr.read()
        assert loser.wait() == 2 and "Traceback" not in said
        assert "cannot listen at" in said and "choose another --port" in said
        assert winner.poll() is None


def first_that_ends(some: Sequence[Command]) -> Command:
    end = time.monotonic() + PATIENCE_S
    while True:
        for process in some:
            if process.poll() is not None:
                return process
        assert time.monotonic() < end, "both go on"
        time.sleep(0.05)


def test_ports_are_held_from_the_beginning_and_let_go_in_the_end() -> None:
    ports = three_ports()
    place = Place((HERE,), Ports(ports["libp2p"], ports["direct"], ports["udp"]))
    first = Listening.at(place)
    with pytest.raises(UsageError, match=f"{ports['direct']} .TCP.: Address already in use"):
        Listening.at(place)
    first.close()
    Listening.at(place).close()
