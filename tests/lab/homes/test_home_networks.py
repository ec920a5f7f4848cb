"""Home networks for real: hosts on an internet of their own, and homes behind routers.

Routers translate addresses and let nothing in; both homes have the same addresses inside. What is
measured is printed: run it with `pytest -m slow -s`.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmrt.lab.homes.namespaces import Internet, why_not_here
from swarmrt.lab.homes.swarm import HomeSwarm
from swarmrt.observe.audit import audit

pytestmark = [pytest.mark.slow, pytest.mark.swarm]

RUN = '[run]\nname = "home"\nsteps = 100000\n[stages]\ncount = 2\n'


@pytest.fixture
def internet() -> Iterator[Internet]:
    if reason := why_not_here():
        pytest.skip(reason)
    with Internet() as internet:
        yield internet


@pytest.fixture
def swarm(tmp_path: Path, internet: Internet) -> Iterator[HomeSwarm]:
    """A swarm that is ended before the internet is taken down."""
    with HomeSwarm(tmp_path, RUN) as swarm:
        yield swarm


def links_of(findings: dict[str, dict[str, Any]], stage: int, carrier: str) -> dict[str, Any]:
    """How the peers of a stage were reached."""
    [found] = [
        one
        for what, one in findings.items()
        if what.startswith(f"stage {stage} ") and what.endswith(f", {carrier}")
    ]
    return found


def test_two_homes_train_through_a_relay_and_a_trainer_resumes(
    internet: Internet, swarm: HomeSwarm
) -> None:
    """The only public host is trainer, directory and relay. It is killed, and comes back."""
    public, here, there = internet.host("public", 1), internet.home("a", 11), internet.home("b", 12)
    trainer = swarm.train(public)
    swarm.serve(here, 0)
    swarm.serve(there, 1)
    swarm.wait_for_step(3)
    lines = set(swarm.lines())
    for stage in (0, 1):
        assert "behind a router" in swarm.said(f"stage-{stage}")

    found = swarm.doctor(here)
    print("from one home to the other, relayed:", links_of(found, 1, "libp2p")["says"])
    assert links_of(found, 1, "libp2p")["works"], found
    assert not links_of(found, 1, "direct")["works"]
    assert found["relays"]["works"]
    advice = found["dialed back, what helps"]["says"]
    assert "forward TCP" in advice and "to 192.168.1.2" in advice
    assert "--announce 11.0.0.11" in advice

    kept = json.loads((swarm.run_dir / "addresses.json").read_text())
    assert any("p2p-circuit" in address for its in kept["peers"].values() for address in its)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait()
    swarm.train(public, "--resume", swarm.run_dir)
    swarm.wait_for_step(swarm.version + 3)
    assert len(swarm.lines()) == 2 and set(swarm.lines()) == lines
    assert audit(swarm.run_dir).passed


def test_two_homes_that_four_hosts_have_seen_do_not_go_through_a_relay(
    internet: Internet, swarm: HomeSwarm
) -> None:
    public = [internet.host(f"public-{number}", 1 + number) for number in range(4)]
    here, there = internet.home("a", 11), internet.home("b", 12)
    swarm.train(public[0])
    [line] = swarm.lines()
    for number, host in enumerate(public[1:]):
        swarm.start(host, f"bootstrap-{number}", "bootstrap", line)
    for number in range(3):
        swarm.wait(
            lambda name=f"bootstrap-{number}": "--join" in swarm.said(name),  # type: ignore[misc]
            "the directory's other nodes",
        )
    more = [
        word
        for number in range(3)
        for address in re.findall(r"--join (\S+)", swarm.said(f"bootstrap-{number}"))
        for word in ("--join", address)
    ]
    swarm.serve(here, 0, *more)
    swarm.serve(there, 1, *more)
    swarm.wait_for_step(3)
    internet.count(there, "11.0.0.11")
    found = swarm.doctor(here, *more)
    print("from one home to the other, through a hole:", links_of(found, 1, "libp2p")["says"])
    assert internet.counted_bytes(there) > 4 << 20, found  # which the doctor has sent straight


def test_home_with_forwarded_ports_does_not_go_through_a_relay(
    internet: Internet, swarm: HomeSwarm
) -> None:
    public, here, there = internet.host("public", 1), internet.home("a", 11), internet.home("b", 12)
    outside = internet.forward(here, "7000-7001")
    swarm.train(public)
    swarm.serve(here, 0, "--port", "7000", "--announce", outside)
    swarm.serve(there, 1)
    swarm.wait_for_step(3)
    found = swarm.doctor(there)
    for carrier in ("direct", "libp2p"):
        assert links_of(found, 0, carrier)["works"], found
    print("from one home to the other, at forwarded ports:", links_of(found, 0, "direct")["says"])


def test_hosts_with_ipv6_only_train(internet: Internet, swarm: HomeSwarm) -> None:
    hosts = [internet.host(f"six-{number}", 1 + number, ipv6_only=True) for number in range(3)]
    swarm.train(hosts[0])
    for stage, host in enumerate(hosts[1:]):
        swarm.serve(host, stage)
    swarm.wait_for_step(3)
    found = swarm.doctor(hosts[1])
    for carrier in ("direct", "libp2p"):
        assert links_of(found, 1, carrier)["works"], found
    assert all(one["works"] for what, one in found.items() if what.startswith("dialed back"))
    assert "/ip6/" in swarm.said("trainer") and "/ip4/11." not in swarm.said("trainer")


def test_firewalls_with_the_named_ports_open_are_enough(
    internet: Internet, swarm: HomeSwarm
) -> None:
    hosts = [internet.host(f"walled-{number}", 1 + number) for number in range(3)]
    for host in hosts:
        internet.close_ports(host, tcp=[7000, 7001], udp=[7001])
    swarm.train(hosts[0], "--port", "7000")
    for stage, host in enumerate(hosts[1:]):
        swarm.serve(host, stage, "--port", "7000")
    swarm.wait_for_step(3)
    visitor = internet.host("visitor", 9)
    internet.close_ports(visitor, tcp=[7000], udp=[])
    found = swarm.doctor(visitor, "--port", "7000")
    for carrier in ("direct", "libp2p"):
        assert links_of(found, 1, carrier)["works"], found
    assert found["dialed back, TCP 7000, libp2p"]["works"]
    assert not found["dialed back, TCP 7001, direct"]["works"]
    assert not found["dialed back, UDP 7001, beacons"]["works"]
    assert "sudo ufw allow 7000,7001/tcp" in found["dialed back, what helps"]["says"]
