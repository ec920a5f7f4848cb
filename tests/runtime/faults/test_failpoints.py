"""A real trainer is killed inside its durable acts, one after the other, and goes on each time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarmrt import lab
from swarmrt.errors import UsageError
from swarmrt.ids import PeerId
from swarmrt.observe.audit import audit
from swarmrt.observe.log import read_faults
from swarmrt.runtime.faults.failpoints import parse_failpoints, read_rules, unfired
from swarmrt.runtime.faults.faults import LinkFaults
from tests.processes import environment, our_processes, swarmrt
from tests.swarms.test_end_to_end import EXACT, largest_difference

DURABLE = (
    "trainer.checkpoint.before_rename",
    "trainer.epoch.before_write",
    "trainer.epoch.after_write",
    "trainer.checkpoint.after_rename",
)


def test_a_failpoint_that_never_fired_says_so() -> None:
    points = parse_failpoints(
        "trainer.epoch.before_write=drop@1,trainer.epoch.after_write=drop@3,"
        "trainer.checkpoint.before_rename=kill"
    )
    points.at("trainer.epoch.before_write")
    points.at("trainer.epoch.after_write")
    assert points.never_fired() == [
        "the failpoint trainer.epoch.after_write=drop@3 never fired: its point was passed 1 time",
        "the failpoint trainer.checkpoint.before_rename=kill@1 never fired: its point was passed 0 "
        "times",
    ]


def test_a_failpoint_that_is_switched_on_later_counts_from_then_on() -> None:
    """The one who has started the process asks. Passages are counted while any rule is on."""
    points, faults = parse_failpoints("trainer.epoch.before_write=drop@9"), LinkFaults()
    faults.on_failpoint(points.arm)
    assert points.at("peer.move.before_open")
    faults.obey('{"failpoint": "peer.move.before_open=drop@2"}')
    passed = [points.at("peer.move.before_open") for _ in range(3)]
    assert passed == [True, False, True]
    with pytest.raises(UsageError, match="no failpoint peer.move.before_opn"):
        faults.obey('{"failpoint": "peer.move.before_opn=drop"}')


def test_a_move_is_asked_of_who_can_order_it() -> None:
    faults, asked = LinkFaults(), list[tuple[PeerId, int, float]]()
    faults.obey('{"move": "A", "stage": 1, "seconds": 2}')  # this process is no trainer
    faults.on_move(lambda *what: asked.append(what))
    faults.obey('{"move": "A", "stage": 1, "seconds": 2}')
    assert asked == [(PeerId("A"), 1, 2.0)]
    with pytest.raises(UsageError, match="not a command"):
        faults.obey('{"move": "A", "stage": "1", "seconds": 2}')


def test_what_a_failpoint_does_is_on_record_before_it_is_done(tmp_path: Path) -> None:
    peer, trainer = tmp_path / "peers" / "one", tmp_path / "trainer"
    rules = "trainer.apply.before_send=drop@2,trainer.epoch.after_write=delay:0.01"
    points = parse_failpoints(rules, trainer)
    assert [points.at("trainer.apply.before_send") for _ in range(3)] == [True, False, True]
    assert unfired(read_rules(rules), [peer, trainer], 0.0) == [
        "the failpoint trainer.epoch.after_write=delay:0.01@1 never fired"
    ]
    assert points.at("trainer.epoch.after_write")
    program = (
        "import sys; from pathlib import Path\n"
        "from swarmrt.runtime.faults.failpoints import parse_failpoints\n"
        "parse_failpoints('peer.leave.before_send=kill', Path(sys.argv[1]))"
        ".at('peer.leave.before_send')"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(peer)], check=False, env=environment()
    )
    assert killed.returncode == -signal.SIGKILL
    kinds = [fault["kind"] for fault in read_faults(tmp_path)]
    assert kinds == ["failpoint drop", "failpoint delay", "failpoint kill"]
    assert unfired(read_rules(rules), [peer, trainer], time.time() + 1), "these were earlier"


def test_folder_that_takes_nothing_changes_no_failpoint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    points = parse_failpoints("trainer.apply.before_send=drop", tmp_path / "file")
    assert not points.at("trainer.apply.before_send")


@pytest.mark.swarm
def test_failpoints_are_on_in_the_processes_of_local(tmp_path: Path) -> None:
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT)
    rules = (
        "peer.accumulate.before_receipt=delay:0.01@2,peer.announce.before=kill@99999,"
        "trainer.apply.before_send=delay:0.01,trainer.epoch.before_write=drop@7"
    )
    done = swarmrt(
        "local", config, "--steps", 2, "--run-dir", run_dir,
        env={**environment(), "SWARMRT_FAILPOINTS": rules},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert audit(run_dir).faults == {"failpoint delay": 4}, "one in each process"
    assert re.search(r"^stages: \d, \d, \d layers$", done.stdout, re.M), "the cut is told"
    told = [line for line in done.stdout.splitlines() if "never fired" in line]
    assert len(told) == 2 and "peer.announce.before=kill@99999 never fired" in told[1]
    assert "trainer.epoch.before_write=drop@7 never fired" in told[0]


@pytest.mark.swarm
def test_trainer_killed_inside_durable_acts(tmp_path: Path) -> None:
    """Checkpoints are whole or absent, and no microbatch is lost or repeated."""
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT)
    with lab.LocalSwarm(config, replicas=[1, 2, 1], run_dir=run_dir, threads=1) as swarm:
        swarm.wait(step=2)
        swarm.trainer.kill()
        for point in DURABLE:
            swarm.trainer.resume(failpoints=f"{point}=kill")
            assert swarm.trainer.wait(120), f"{point} was not passed"
            assert swarm.trainer.exit_code == -signal.SIGKILL, swarm.trainer.last_lines()
        swarm.trainer.resume()
        swarm.finish(120)
        report = swarm.audit()
    assert report.passed and report.steps == 20, report.violations
    assert our_processes(str(run_dir)) == []
    ours, alone = tmp_path / "swarm.safetensors", tmp_path / "alone.safetensors"
    assert swarmrt("export", run_dir, "--out", ours).returncode == 0
    assert swarmrt("reference", config, "--steps", 20, "--out", alone).returncode == 0
    assert largest_difference(ours, alone) < 1e-9
