"""The lab: schedules of faults, and swarms of real processes that suffer them."""

from __future__ import annotations

import inspect
import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from swarmrt import lab
from swarmrt.cli.experiments.chaos import chaos
from swarmrt.errors import RunError, UsageError
from swarmrt.lab.chaos.schedule import NEED_COMPANY
from swarmrt.lab.chaos.traces import said_again
from swarmrt.lab.swarm.commits import Commits
from swarmrt.log_writer import AGAIN
from swarmrt.runtime.daemon.restarting import UP_AGAIN
from swarmrt.runtime.faults.failpoints import read_rules
from swarmrt.scheduler.failpoints import all_points
from tests.processes import our_processes, swarmrt

CONFIG = """
[run]
name = "lab"
steps = 1000000
seed = 3
[model]
layers = 2
width = 32
heads = 2
kv_heads = 1
sequence = 16
[stages]
layers = [1, 1]
[batch]
microbatch = 1
microbatches = 4
[checkpoint]
every_steps = 5
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "lab.toml"
    path.write_text(CONFIG)
    return path


def drawn(
    seed: int, kinds: Sequence[str] = lab.KINDS, replicas: Sequence[int] = (2, 3, 2), num: int = 100
) -> list[lab.Fault]:
    return lab.draw(seed, kinds, replicas, 3.0, num)


# ---------------------------------------------------------------------- schedules


def test_schedule_is_a_function_of_its_seed() -> None:
    assert drawn(7) == drawn(7) == drawn(7, kinds=lab.KINDS[::-1])
    assert drawn(7)[:20] == drawn(7, num=20)
    assert drawn(7) != drawn(8)


@pytest.mark.parametrize("seed", range(20))
def test_each_cycle_has_every_kind_and_the_bootstrap_dies_once(seed: int) -> None:
    kinds = [fault.kind for fault in drawn(seed)]
    assert sorted(kinds[: len(lab.KINDS)]) == sorted(lab.KINDS)
    rest, cycle = kinds[len(lab.KINDS) :], len(lab.KINDS) - 1
    for start in range(0, len(rest) - cycle, cycle):
        assert set(rest[start : start + cycle]) == set(lab.KINDS) - {"bootstrap"}
    assert Counter(kinds)["bootstrap"] == 1


@pytest.mark.parametrize("seed", range(20))
def test_faults_are_possible_and_in_order(seed: int) -> None:
    replicas = (1, 3, 2)
    faults = drawn(seed, replicas=replicas)
    times = [fault.at_s for fault in faults]
    assert times == sorted(times) and times[0] > 0
    for fault in faults:
        is_trainers = fault.kind in ("daemon", "disk") and fault.other == 0
        if fault.kind in ("trainer", "bootstrap", "directory") or is_trainers:
            assert fault.stage is None and str(fault)
            continue
        assert fault.stage is not None and fault.which < replicas[fault.stage]
        if fault.kind in NEED_COMPANY:
            assert replicas[fault.stage] > 1
        if fault.kind == "move":
            assert fault.other_stage != fault.stage
        elif fault.other_stage is not None:
            assert abs(fault.other_stage - fault.stage) <= 1
        assert str(fault)


@pytest.mark.parametrize("kinds", [["kill"], ["bootstrap"], ["slow", "join"]])
def test_only_the_kinds_asked_for(kinds: list[str]) -> None:
    faults = drawn(1, kinds=kinds, num=10)
    assert {fault.kind for fault in faults} == set(kinds)
    assert len(faults) == (1 if kinds == ["bootstrap"] else 10)


def test_the_command_makes_faults_of_all_kinds() -> None:
    asked = inspect.signature(chaos).parameters["kinds"].default.default
    assert tuple(asked.split(",")) == lab.KINDS


def test_moves_fail_at_each_of_their_acts_and_every_second_one_at_none() -> None:
    """Before or after a seat is taken, its state loaded, the switch, and the drain of the first."""
    moves = lab.draw(1, ["move"], (2, 3, 2), 3.0, 1000)
    points = {move.failpoint.partition("=")[0] for move in moves} - {""}
    assert points <= set(all_points())
    acts = "open", "load", "ready", "decide", "take", "drain", "close", "give_up"
    wanted = {f"{when}_{act}" for act in acts for when in ("before", "after")}
    assert {point.rpartition(".")[2] for point in points} >= wanted
    assert 400 < sum(move.failpoint == "" for move in moves) < 600
    assert all(read_rules(move.failpoint) for move in moves if move.failpoint)


def test_unknown_kind() -> None:
    with pytest.raises(UsageError, match="'stopp'; did you mean 'stop'?"):
        drawn(1, kinds=["stopp"])
    with pytest.raises(UsageError, match="at least one kind"):
        drawn(1, kinds=[])


# ---------------------------------------------------------------------- following a run


def test_commits_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    commits = Commits(path)
    commits.read()
    assert commits.version == 0 and commits.members(1) == ()
    line = '{"time": %d, "version": %d, "digests": [{"A": "x"}, {"B": "y", "C": "y"}]}\n'
    with path.open("a", buffering=1) as file:
        file.write(line % (10, 1) + '{"time": 11, "version": 1, "eval_loss": 3.5}\n')
        file.write((line % (12, 2))[:20])  # a line is whole only with its end
        file.flush()
        commits.read()
        assert (commits.version, commits.number) == (1, 1)
        file.write((line % (12, 2))[20:])
        commits.read()
        assert (commits.version, commits.number, commits.before_last_at) == (2, 2, 10)
        assert commits.members(1) == ("B", "C")
        file.write((line % (13, 3))[:20] + "\n" + line % (14, 3))  # a killed writer tears one
        commits.read()
        assert (commits.version, commits.number) == (3, 3)


# ---------------------------------------------------------------------- real processes


@pytest.mark.swarm
def test_swarm_is_driven_through_failures_and_leaves_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newcomer, a killed and a drained peer, a killed trainer and no directory node."""
    run_dir = tmp_path / "run"
    with lab.LocalSwarm(config, replicas=[1, 2], run_dir=run_dir, threads=1) as swarm:
        swarm.wait(step=3)
        assert [peer.name for peer in swarm.peers()] == ["stage-0-0", "stage-1-0", "stage-1-1"]
        assert swarm.members(1) == tuple(sorted(peer.seat for peer in swarm.peers(stage=1)))
        with pytest.raises(RunError, match="the trainer is running"):
            swarm.trainer.resume()
        swarm.bootstrap.kill()
        failpoints = "peer.prepare.before_prepared=delay:0.01,peer.announce.before=drop@99999"
        newcomer = swarm.spawn(stage=0, failpoints=failpoints)  # joins at the others
        swarm.wait_for_member(newcomer)
        swarm.peers(stage=1)[0].kill()
        swarm.wait(swarm.version + 2)
        assert len(swarm.members(1)) == 1
        swarm.trainer.kill()
        swarm.trainer.resume()
        swarm.peers(stage=0)[0].terminate()
        swarm.wait_until(lambda: len(swarm.peers(stage=0)) == 1, "the peer to leave", 120)
        swarm.trainer.terminate()
        swarm.finish()
        assert all(peer.exit_code in (0, -signal.SIGKILL) for peer in swarm.ended_peers())
    assert our_processes(str(run_dir)) == []
    audit = swarm.audit()
    assert audit.passed and audit.steps >= 5, audit.lines()
    # the trainer's Ctrl-C counts; how all are ended does not
    asked = {"bootstrap": 1, "kill": 1, "trainer": 1, "term": 2}
    assert audit.faults == asked | {"failpoint delay": 1}
    never = f"{newcomer.name}: the failpoint peer.announce.before=drop@99999 never fired"
    said = capsys.readouterr().err
    assert never in said and said.count("never fired") == 1
    assert (run_dir / "peers" / newcomer.name / "events.jsonl").exists()
    with pytest.raises(UsageError, match="holds a run already"):
        lab.LocalSwarm(config, run_dir=run_dir)


@pytest.mark.swarm
def test_a_run_goes_on_without_a_directory_and_with_full_disks(
    config: Path, tmp_path: Path
) -> None:
    """Commits come while no daemon answers; what found no room is there in the end. Before that the
    daemons of the trainer and of a lone replica are killed, and a newcomer finds both."""
    run_dir = tmp_path / "run"
    with lab.LocalSwarm(config, replicas=[1, 2], run_dir=run_dir, threads=1) as swarm:
        swarm.wait(step=3)
        hit = [swarm.trainer, swarm.peers(stage=0)[0]]
        back = [said_again(part, UP_AGAIN) for part in hit]
        for part in hit:
            swarm.kill_daemon(part)
        swarm.wait_until(lambda: all(is_back() for is_back in back), "the daemons", 60)
        swarm.wait_for_member(swarm.spawn(stage=0))
        full = [swarm.trainer, swarm.peers(stage=1)[0]]
        for part in full:
            swarm.fill_disk(part, 3.0)
        swarm.stop_directory(15.0)
        swarm.wait(swarm.version + 3)  # which is told when there is room for it
        assert not swarm.trainer.answers(0.5)
        swarm.wait_until(lambda: swarm.trainer.answers(0.5), "an answer of the directory", 120)
        swarm.trainer.terminate()
        swarm.finish()
        for part in full:
            assert f"events.jsonl: {AGAIN}" in part.output()
    assert all(path.name.startswith("step-") for path in (run_dir / "checkpoints").iterdir())
    audit = swarm.audit()
    assert audit.passed and audit.steps == swarm.version, audit.lines()
    assert not audit.unchecked
    assert audit.faults == {"daemon": 2, "directory": 1, "disk": 2, "term": 1}


@pytest.mark.swarm
def test_block_that_fails_leaves_nothing(config: Path, tmp_path: Path) -> None:
    """Not even a paused peer; and what is not possible is said."""
    run_dir = tmp_path / "run"
    with pytest.raises(RunError, match="the trainer ended before step 3.*last lines"):
        with lab.LocalSwarm(config, run_dir=run_dir, threads=1) as swarm:
            swarm.trainer.kill()
            with pytest.raises(UsageError, match="there is no stage 2"):
                swarm.spawn(stage=2)
            swarm.peers(stage=0)[0].pause()
            swarm.wait(step=3)
    assert our_processes(str(run_dir)) == []


@pytest.mark.swarm
def test_chaos_is_survived_and_reported(config: Path, tmp_path: Path) -> None:
    settings = [
        "--seed",
        4,
        "--steps",
        100,
        "--every",
        2,
        "--replicas",
        "1,1",
        "--auto",
        2,
        "--json",
    ]
    settings += ["--set", "batch.microbatches=48"]  # so that the run is not over before the faults
    done = swarmrt("chaos", config, *settings, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["seed"] == 4 and result["steps"] == 100 and result["failed"] is None
    assert set(result["faults"]) <= set(lab.KINDS) and sum(result["faults"].values()) > 0
    audit = result["audit"]
    assert audit["steps"] == 100 and not audit["violations"] and not audit["digest_mismatches"]
    for fault in lab.draw(4, lab.KINDS, [2, 2], 2.0, num=8):
        assert str(fault) in done.stderr
    assert our_processes(str(tmp_path / "run")) == []


@pytest.mark.swarm
def test_chaos_that_disturbs_nothing_does_not_pass(config: Path, tmp_path: Path) -> None:
    settings = ["--seed", 1, "--steps", 3, "--every", 1000, "--replicas", "1,1", "--json"]
    done = swarmrt("chaos", config, *settings, "--run-dir", tmp_path / "run")
    assert done.returncode == 1 and "NOTHING WAS DISTURBED" in done.stderr, done.stderr
    result = json.loads(done.stdout)
    assert result["faults"] == {} and result["failed"] is None
    assert result["audit"]["steps"] == 3 and not result["audit"]["violations"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--kinds", "kill,explode"], "no kind of fault is called 'explode'"),
        (["--replicas", "1,2,3"], "the run has 2 stages"),
        (["--kinds", "move"], "nobody moves without processes that may"),
    ],
)
@pytest.mark.swarm
def test_bad_chaos(config: Path, arguments: list[str], expected: str) -> None:
    done = swarmrt("chaos", config, "--seed", 1, "--steps", 3, *arguments)
    assert done.returncode == 2 and expected in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
