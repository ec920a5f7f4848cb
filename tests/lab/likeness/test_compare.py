"""The likeness of a run. The runs are of the production cores in virtual time, whose logs are
written as real processes write theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmrt.cli.app import app
from swarmrt.errors import UsageError
from swarmrt.ids import PeerId, stage_of
from swarmrt.lab.likeness.compare import NOT_CALIBRATED, compare
from swarmrt.lab.likeness.cpu import cpu_of
from swarmrt.runtime.trainer.folders import write_config
from swarmrt.scheduler.timing.times import BEACON_S
from swarmrt.sim.swarm.world import World

STAGES = 3
NEAR = 0.06  # a run is as long as a few steps


def swarm(
    service_s: tuple[float, float] = (0.05, 0.05), steps: int = 10, microbatches: int = 48
) -> World:
    return World(
        [0] * STAGES,
        seed=4,
        steps=steps,
        microbatches=microbatches,
        eval_every=0,
        checkpoint_every=0,
        staleness=1,
        service_s=service_s,
        hosts=[(stage,) for stage in range(STAGES) for _ in range(2)],
    )


def written(world: World, folder: Path) -> Path:
    """Write the logs of a swarm, as far as it has come."""
    write_config(folder, world.config)
    for name, records in world.log().items():
        place = folder / ("trainer" if name == "trainer-0" else f"peers/{name}") / "events.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return folder


@pytest.fixture(scope="module")
def at_rest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a swarm to which nothing happens."""
    world = swarm()
    world.run()
    return written(world, tmp_path_factory.mktemp("at_rest"))


@pytest.fixture(scope="module")
def churned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a swarm of which one peer is killed, and another one joins."""
    world = swarm(steps=14)
    world.run_until(4)
    world.kill(PeerId("h2/1"))
    world.run_until(6)
    world.spawn_host((1,))
    world.run()
    return written(world, tmp_path_factory.mktemp("churned"))


def test_prediction_is_near_a_swarm_at_rest(at_rest: Path) -> None:
    found = compare(at_rest)
    assert found.ratio == pytest.approx(1, abs=NEAR)
    assert 0.001 < found.run.way_s < 0.07  # as the simulator's links are
    assert found.best[1] == pytest.approx(2 / 0.15, rel=0.1)
    assert found.run.steps == 8


def test_unequal_peers_are_told_from_the_logs(tmp_path: Path) -> None:
    world = swarm(service_s=(0.02, 0.08))
    world.run()
    found = compare(written(world, tmp_path))
    assert found.ratio == pytest.approx(1, abs=NEAR)
    for seat, seconds in found.run.service_s.items():
        true_s = 3 * world.peers[PeerId(seat)].jobs.service_s
        assert seconds == pytest.approx(true_s, rel=0.1)


def test_who_comes_and_goes_does_so_in_the_likeness(churned: Path) -> None:
    found = compare(churned)
    later = [change for change in found.likeness.changes if change.at_s > 0]
    assert [change.joins for change in later] == [False, True]
    assert later[0].name.startswith("1-") and later[1].name.startswith("1-")
    assert found.ratio == pytest.approx(1, abs=NEAR)
    assert found.best[0] == 1, "the stage that was short of a peer"


def test_whom_its_owner_has_paused_is_away_in_the_likeness(tmp_path: Path) -> None:
    world = swarm(steps=14)
    world.run_until(4)
    world.take_device(PeerId("h2/1"), 12.0)
    world.run()
    found = compare(written(world, tmp_path))
    later = [change for change in found.likeness.changes if change.at_s > 0]
    assert [change.joins for change in later] == [False, True]
    assert later[0].name == later[1].name
    assert later[1].at_s - later[0].at_s == pytest.approx(12, abs=2 * BEACON_S)
    assert found.ratio == pytest.approx(1, abs=NEAR)


def said(*arguments: str) -> dict[str, float]:
    """Return what a command prints."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    told: dict[str, float] = json.loads(result.output)
    return told


def test_scenario_is_written_and_played_again(churned: Path, tmp_path: Path) -> None:
    found = compare(churned)
    out = tmp_path / "like.toml"
    told = said("simulate", "--like", str(churned), "--out", str(out))
    assert told["predicted_over_measured"] == found.ratio
    again = said("simulate", str(out), "--fidelity", "flow", "--policy", "static")
    assert again["throughput"] == pytest.approx(found.predicted, rel=0.2)  # over all the time


def test_scenario_is_not_written_where_its_churn_goes(at_rest: Path, tmp_path: Path) -> None:
    out = tmp_path / "like.csv"
    result = CliRunner().invoke(app, ["simulate", "--like", str(at_rest), "--out", str(out)])
    assert isinstance(result.exception, UsageError), result.output
    assert "is where its churn goes" in str(result.exception)
    assert not out.exists()


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("no run", "no such file; is"),
        ("short", "3 steps were committed; a likeness needs 4 at the least"),
        ("cut", "bytes of it were lost while its disk was full"),
    ],
)
def test_what_is_no_whole_run_gets_a_sentence(tmp_path: Path, broken: str, expected: str) -> None:
    if broken != "no run":
        world = swarm(steps=3 if broken == "short" else 5, microbatches=8)
        world.run()
        written(world, tmp_path)
    if broken == "cut":
        with (tmp_path / "trainer" / "events.jsonl").open("a") as log:
            log.write('{"lost_bytes": 17}\n')
    with pytest.raises(UsageError, match=expected):
        compare(tmp_path)


def test_peers_without_logs_are_known_by_their_words(at_rest: Path, tmp_path: Path) -> None:
    shutil.copytree(at_rest, tmp_path, dirs_exist_ok=True)
    for log in tmp_path.glob("peers/**/events.jsonl"):
        if stage_of(PeerId(f"h/{log.parent.name}")) == 1:
            log.unlink()
    found = compare(tmp_path)
    assert len(found.run.service_s) == 2 * STAGES
    assert found.ratio == pytest.approx(1, abs=0.1)


def vitals(folder: Path, cpu_s: float, waited_s: float | None) -> None:
    path = folder / "trainer" / "vitals.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "time": 100.0 + 5 * number,
            "cpu_s": number * cpu_s,
            "waited_s": None if waited_s is None else number * waited_s,
            "cores": 2,
        }
        for number in range(5)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.mark.parametrize(
    ("cpu_s", "waited_s", "is_limit"),
    [(1.0, 0.1, False), (1.0, 4.0, True), (9.5, None, True), (5.0, None, False)],
)
def test_a_busy_machine_is_told_from_slow_peers(
    tmp_path: Path, cpu_s: float, waited_s: float | None, is_limit: bool
) -> None:
    vitals(tmp_path, cpu_s, waited_s)
    cpu = cpu_of(tmp_path, 100.0, 120.0, computed_s=30.0)
    assert cpu.busy_share == pytest.approx(cpu_s / 10)
    assert cpu.is_limit is is_limit


def test_logs_without_vitals_say_so(tmp_path: Path) -> None:
    cpu = cpu_of(tmp_path, 0.0, 100.0, computed_s=30.0)
    assert not cpu.is_limit
    assert "not told" in str(cpu)


def test_a_limit_of_the_cpu_is_said_last(tmp_path: Path) -> None:
    world = swarm(steps=5, microbatches=8)
    world.run()
    written(world, tmp_path)
    vitals(tmp_path, 1.0, 9.0)
    days = [{"version": n, "digests": [], "time": 96.0 + 4 * n} for n in range(1, 6)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(day)}\n" for day in days))
    assert compare(tmp_path).lines()[-1] == NOT_CALIBRATED
