"""The command `swarmrt simulate`, as its users type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.processes import swarmrt

CHANGES = "".join(f"0,add,p{number}\n" for number in range(8)) + "600000,remove,p3\n900000,add,q\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(CHANGES)
    return path


def test_one_json_object(trace: Path) -> None:
    done = swarmrt("simulate", "--trace", trace, "--stages", 2, "--download", 60, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fidelity"] == "fluid"
    assert 0.9 < found["throughput_over_oracle"] <= 1
    assert set(found["regret"]) == {"detect", "decide", "download", "imbalance", "restart"}
    assert {"throughput_over_free_oracle", "switches", "downloads", "lost_states"} < set(found)


@pytest.mark.parametrize("fidelity", ["flow", "full"])
def test_every_fidelity_has_the_keys_of_fluid(trace: Path, fidelity: str) -> None:
    shape = ("--trace", trace, "--stages", 2, "--download", 60, "--policy", "static", "--json")
    plain, played = (
        json.loads(swarmrt("simulate", *shape, "--fidelity", name).stdout)
        for name in ("fluid", fidelity)
    )
    assert played["fidelity"] == fidelity
    assert set(played) == set(plain)
    assert set(played["regret"]) == {*plain["regret"], "traffic"}
    assert 0.7 < played["throughput_over_oracle"] <= 1.05


def test_several_policies_are_a_table_and_one_is_a_picture(trace: Path, tmp_path: Path) -> None:
    done = swarmrt(
        "simulate", "--trace", trace, "--stages", 2, "--policy", "swarmrt", "--policy", "none",
        "--seeds", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "fidelity: fluid; 2 stages; means"
    assert [line.split()[0] for line in lines[1:]] == ["policy", "swarmrt", "none"]
    picture = tmp_path / "picture.png"
    done = swarmrt("simulate", "--trace", trace, "--stages", 2, "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "fidelity: fluid" in done.stdout


BAD = {
    "nothing": ((), "give a SCENARIO.toml, or --trace FILE with --stages N"),
    "no stages": (("--trace", "TRACE"), "--trace needs --stages N"),
    "both": (("SCENE", "--stages", 2), "says all of the scene"),
    "no fidelity": (
        ("--trace", "TRACE", "--stages", 2, "--fidelity", "x"),
        "fidelity 'x' is unknown",
    ),
    "moves in full": (
        ("--trace", "TRACE", "--stages", 2, "--policy", "swarm-literal:60", "--fidelity", "full"),
        "nobody moves yet",
    ),
    "a likeness of another kind": (("--like", "RUN", "--fidelity", "full"), "--like says all"),
    "no policy": (("--trace", "TRACE", "--stages", 2, "--policy", "x"), "policy 'x' is unknown"),
    "a picture of two": (
        ("--trace", "TRACE", "--stages", 2, "--seeds", 2, "--plot", "a.png"),
        "one",
    ),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(
    trace: Path, arguments: tuple[object, ...], expected: str
) -> None:
    named = {"TRACE": trace, "SCENE": trace.with_suffix(".toml")}
    done = swarmrt("simulate", *(named.get(str(word), word) for word in arguments))
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
