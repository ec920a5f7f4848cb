"""`swarmrt doctor` as its user runs it: alone, at a dead address, and beside a real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swarmrt import lab
from tests.processes import our_processes, swarmrt

pytestmark = pytest.mark.swarm
NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/QmUvmcYDDGE1hcwzsGbguEV8NYP179bwfSYtZezJcTMxgt"


def findings(stdout: str) -> dict[str, dict[str, Any]]:
    return {one["what"]: one for one in json.loads(stdout.splitlines()[-1])["findings"]}


def test_nobody_at_that_address_is_told_after_what_works_here() -> None:
    done = swarmrt("doctor", "--join", NOBODY, "--json")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    found = findings(done.stdout)
    assert found["direct links"]["works"] and found["libp2p links"]["works"]
    assert "MB/s" in found["direct links"]["says"]
    assert "parameters" in found["device cpu"]["says"]
    assert not found["directory"]["works"] and found["directory"]["says"]


def test_everybody_of_a_run_is_measured(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('[run]\nname = "seen"\nsteps = 100000\n[stages]\ncount = 2\n')
    with lab.LocalSwarm(config, replicas=[1, 1], run_dir=tmp_path / "run", threads=1) as swarm:
        swarm.wait(2)
        done = swarmrt("doctor", swarm.join_line, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        found = findings(done.stdout)
        links = [
            one["says"] for what, one in found.items() if what.endswith((", direct", ", libp2p"))
        ]
        assert len(links) == 6 and all("MB/s there" in says for says in links)
        assert sum("links would use it" in says for says in links) == 3
        clocks = [one["says"] for what, one in found.items() if what.endswith(", clock")]
        assert len(clocks) == 3 and all("give or take" in says for says in clocks)
        assert found["stage 1"]["says"].startswith("1 of 1 peers serve it; ")
        assert found["stage 1"]["says"].endswith("fits on cpu")
        before = swarm.version
        swarm.wait(before + 3)
    logs = list((tmp_path / "run").rglob("events.jsonl"))
    assert len(logs) == 3 and not any('"Prob' in log.read_text() for log in logs)  # not for cores
    assert our_processes(str(tmp_path)) == []
