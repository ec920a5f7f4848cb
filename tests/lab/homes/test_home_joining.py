"""Newcomers behind a home link, in network namespaces, and what is left of these."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmrt.cli.app import app
from swarmrt.errors import UsageError
from swarmrt.lab.bench.emulation import Speed
from swarmrt.lab.homes.joining import NEEDED, Case, measure
from swarmrt.lab.homes.namespaces import Internet, why_not_here
from swarmrt.runtime.limits.rates import parse_rate
from tests.processes import running

PATIENCE_S = 60.0
COMMAND = ("bench", "join", "can", "--bandwidth", "20mbit")


@pytest.fixture
def internet() -> Internet:
    """An internet that has not been entered. Skips where there can be none."""
    if reason := why_not_here(NEEDED, lambda internet: internet.host("try", 1)):
        pytest.skip(reason)
    return Internet()


def namespaces() -> set[str]:
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in done.stdout.splitlines()}


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_bandwidths_are_read_as_tc_reads_them() -> None:
    assert parse_rate("--bandwidth", "20mbit") == 2.5e6
    assert parse_rate("--bandwidth", "800kbit") == 1e5
    for bad in ("20", "mbit", "20mb", "-1mbit", "1e3kbit", "0mbit"):
        with pytest.raises(UsageError, match="--bandwidth"):
            parse_rate("--bandwidth", bad)


def test_whoever_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(app, COMMAND)
    assert result.exit_code == 1
    assert "network namespaces need root" in str(result.exception)


def test_whoever_lacks_a_program_is_told_which_package_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(app, COMMAND)
    assert result.exit_code == 1
    assert "ip, tc, nsenter not installed" in str(result.exception)
    assert "apt-get install iproute2 util-linux" in str(result.exception)


@pytest.mark.parametrize("words", [("nowhere",), ("--replicas", "0"), ("--replicas", "1,x")])
def test_what_cannot_be_measured_is_refused_before_anything_is_made(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["bench", "join", "--bandwidth", "20mbit", *words])
    assert isinstance(result.exception, UsageError)


def test_nothing_is_left_of_an_internet_when_something_fails(internet: Internet) -> None:
    """Neither its namespaces nor what runs in them."""
    before = namespaces()
    with pytest.raises(ZeroDivisionError), internet:
        host = internet.host("a", 1)
        internet.narrow(host, "20mbit")
        process = subprocess.Popen(host.command("sleep", "1000"))
        wait_until(
            lambda: str(process.pid) in host.run("ip", "netns", "pids", host.namespace).split(),
            "the process to be there",
        )
        raise ZeroDivisionError
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert namespaces() == before


@pytest.mark.swarm
def test_nothing_is_left_after_ctrl_c(internet: Internet) -> None:
    with running(*COMMAND) as process:

        def made() -> set[str]:
            return {name for name in namespaces() if name.startswith(f"swarmrt-{process.pid}-")}

        wait_until(lambda: any(name.endswith("home") for name in made()), "namespaces")
        os.kill(process.pid, signal.SIGINT)
        process.wait(PATIENCE_S)
        assert not made()


@pytest.mark.slow
@pytest.mark.swarm
def test_a_newcomer_behind_a_home_link_gets_in_at_the_second_commit_and_serves_its_share(
    internet: Internet, tmp_path: Path
) -> None:
    """A short one of `swarmrt bench join --bandwidth 20mbit`: steps of 5 s, gradients of 1 MB.

    `pytest -m slow tests/lab/homes/test_home_joining.py`, a minute and a half.
    """
    model = "layers = 7\nwidth = 64\nheads = 4\nkv_heads = 4"
    case = Case(model, 8, (Speed(0.2, 0.4), Speed(0.01, 0.02)), gets_in=True)
    found = measure(case, 1, "20mbit", 2.5e6, 0.0, tmp_path)
    assert found.passed, found
