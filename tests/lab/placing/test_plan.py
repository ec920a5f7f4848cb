"""`swarmrt plan`, as its user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from swarmrt.errors import UsageError
from swarmrt.lab.placing.peers_file import read_peers

ROOT = Path(__file__).resolve().parents[3]
PEERS = ROOT / "examples" / "peers.toml"


def test_a_plan_of_the_quickstart() -> None:
    command = [sys.executable, "-m", "swarmrt", "plan", str(ROOT / "examples" / "quickstart.toml")]
    command += ["--peers", str(PEERS), "--json", "--set", "model.width=32"]
    command += ["--set", "model.sequence=16", "--set", "stages.layers=[2,2,2]"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    served = [peer for stage in found["stages"] for peer in stage["peers"]]
    assert sorted([*served, *found["left_out"]]) == [
        "attic-0",
        "attic-1",
        "lab-0",
        "lab-1",
        "lab-2",
        "phone",
    ]
    assert found["layers"] == [2, 2, 2] and len(found["losses"]) == len(served)
    assert "a step takes" in done.stderr and "bound: " in done.stderr
    assert "at its peak" in done.stderr
    peaks = [stage["peak_bytes"] for stage in found["stages"]]
    assert all(100e6 < peak < 2e9 for peak in peaks), "libraries, and three small stages"
    assert "at its peak" in done.stderr
    peaks = [stage["peak_bytes"] for stage in found["stages"]]
    assert all(100e6 < peak < 2e9 for peak in peaks), "libraries, and three small stages"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("peers = [", "is not TOML"),
        ("", "peers: Field required"),
        ("[[peers]]\nname = 'a'\nsped = 1", "peers.0.sped: there is no such key"),
        ("[[peers]]\nname = 'a'\nspeed = 0", "peers.0.speed: Input should be greater than 0"),
        ("[[peers]]\nname = 'a'\n[[peers]]\nname = 'a'", "two peers are called a"),
        (
            "[[peers]]\nname = 'a'\nregion = 'x'\n[[peers]]\nname = 'b'\nregion = 'y'",
            r"say what link there is with \[\[links\]\] between",
        ),
        (
            "[[peers]]\nname = 'a'\n[[links]]\nbetween = ['here', 'there']",
            "no peer is in there, to which a link is told",
        ),
    ],
)
def test_a_file_of_peers_that_cannot_be_used(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "peers.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        read_peers(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_peers(tmp_path / "none.toml")
