"""Scenarios: what a file says, and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swarmrt.errors import ConfigError
from swarmrt.sim.fluid.scenario import read_scenario
from swarmrt.sim.fluid.simulate import simulate

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "scenarios").glob("*.toml"))
SMALL = """
[world]
hours = 2

[[stages]]
count = 2
state_bytes = 3e9
message_bytes = 1e6

[[stages]]
compute_s = 2.0

[[peers]]
share = 1
speed = 4.0
downlink_mbps = 80
uplink_mbps = 16

[churn]
kind = "none"
peers = 6
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "scenario.toml"
    path.write_text(text)
    return path


def test_a_scenario_becomes_a_scene(tmp_path: Path) -> None:
    scene = read_scenario(written(tmp_path, SMALL)).scene(tmp_path, 0)
    assert [stage.compute for stage in scene.stages] == [1.0, 1.0, 2.0]
    assert scene.stages[0].gradient_bytes == 250e6
    assert scene.end_s == 7200
    traits = scene.traits_of("peer0")
    assert traits.rate == 1.0, "two messages of a megabyte each way, over two megabytes a second"
    assert scene.wait_s("peer0") == 300.0
    result = simulate(scene, "swarmrt")
    assert result.row()["throughput"] == 1.0, "two peers a stage would do 2, but the last takes two"


def test_classes_and_distributions_are_drawn_from_the_seed(tmp_path: Path) -> None:
    text = SMALL.replace("speed = 4.0", 'speed = {low = 1.0, high = 8.0, kind = "uniform"}')
    text += "\n[[peers]]\nshare = 1\nspeed = {low = 0.1, high = 0.2}\n"
    scenario = read_scenario(written(tmp_path, text.replace("peers = 6", "peers = 60")))
    one, two = scenario.scene(tmp_path, 1), scenario.scene(tmp_path, 2)
    assert one == scenario.scene(tmp_path, 1)
    assert one.traits != two.traits
    slow = sum(traits.rate < 0.5 for traits in one.traits.values())
    assert 15 < slow < 45


@pytest.mark.parametrize("kind", ["poisson", "diurnal", "heavy-tailed", "mass"])
def test_every_kind_of_churn(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, SMALL.replace('"none"', f'"{kind}"'))
    assert len(read_scenario(path).scene(tmp_path, 0).changes) > 6


def test_a_trace_lies_beside_its_scenario(tmp_path: Path) -> None:
    (tmp_path / "churn.csv").write_text("0,add,a\n0,add,b\n0,add,c\n60000,remove,a\n")
    path = written(tmp_path, SMALL.replace('"none"', '"trace"\nfile = "churn.csv"'))
    scene = read_scenario(path).scene(tmp_path, 0)
    assert scene.end_s == 60.0
    assert len(scene.changes) == 4


BAD = {
    "toml": ("[world", "not valid TOML"),
    "no stages": ("[world]\nhours = 1", "stages: Field required"),
    "a key": (SMALL.replace("hours", "hour"), "world.hour: Extra inputs are not permitted"),
    "a number": (SMALL.replace("hours = 2", "hours = nan"), "world.hours"),
    "a range": (SMALL.replace("speed = 4.0", "speed = {low = 2, high = 1}"), "low 2 is more than"),
    "a kind": (SMALL.replace('"none"', '"chaos"'), "churn.kind: Input should be"),
    "no file": (SMALL.replace('"none"', '"trace"'), "file belong together"),
    "a stage": (SMALL.replace("share = 1", "only_stages = [3]"), "only_stages names 3"),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_a_bad_scenario_gets_a_sentence(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_scenario(written(tmp_path, text))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_can_be_simulated(path: Path) -> None:
    scene = replace(read_scenario(path).scene(path.parent, 0), end_s=120.0)
    result = simulate(scene, "static")
    assert result.row()["throughput_over_oracle"] > 0.1


def test_there_are_examples() -> None:
    assert EXAMPLES


NAMED = """
[[stages]]
count = 2

[[peers]]
names = ["a", "b"]
speed = 3.0
only_stages = [1]

[[peers]]
names = ["c"]
only_stages = [0]

[churn]
kind = "trace"
file = "who.csv"
"""


def test_peers_of_a_trace_have_traits_by_name_and_serve_what_their_owners_let_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "who.csv").write_text("0,add,a\n0,add,b\n0,add,c\n10000,remove,c\n")
    scene = read_scenario(written(tmp_path, NAMED)).scene(tmp_path, 0)
    assert scene.traits_of("a").rate == scene.traits_of("b").rate == 3.0
    result = simulate(scene, "static", with_timeline=True)
    at_first = max(result.samples, key=lambda sample: sample.rate)
    assert at_first.replicas == (1, 2), "though stage 0 is the poorest"
    (tmp_path / "who.csv").write_text("0,add,a\n0,add,stranger\n")
    with pytest.raises(
        ConfigError, match=r"peers\.names: stranger is in the trace, and in no class"
    ):
        read_scenario(written(tmp_path, NAMED)).scene(tmp_path, 0)
