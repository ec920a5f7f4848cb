"""The auditor believes nobody: logs that were tampered with do not pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarmrt.errors import UsageError
from swarmrt.ids import PeerId
from swarmrt.messages import Admit
from swarmrt.observe.accounts import Account
from swarmrt.observe.audit import Audit, audit
from swarmrt.scheduler.instructions import Send
from swarmrt.scheduler.recording import to_plain
from swarmrt.sim.swarm.world import World

Log = list[dict[str, Any]]


WAYS: list[dict[str, Any]] = [
    {},
    {"staleness": 1},
    {"averaging": {"strategy": "async", "local_batch": 2}},
]


@pytest.fixture(params=WAYS, ids=["", "stale", "averaging"])
def logs(request: pytest.FixtureRequest) -> dict[str, Log]:
    """Of a run in which a peer was killed and its work recovered."""
    world = World([2, 2], seed=2, steps=6, microbatches=8, **request.param)
    world.run_until(version=3)
    world.clock.after(1.5, lambda: world.kill(PeerId("s1p0")))
    world.run()
    assert world.disk.recoveries["recovered"]
    plain: dict[str, Log] = json.loads(json.dumps(world.log()))
    return plain


def audited(logs: dict[str, Log], run_dir: Path) -> Audit:
    files: dict[str, str] = {}
    for name, log in logs.items():
        folder = "trainer" if name.startswith("trainer") else f"peers/{name}"
        lines = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in log)
        files[folder] = files.get(folder, "") + lines  # of a trainer's incarnations, as they came
    for folder, lines in files.items():
        path = run_dir / folder / "events.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines)
    return audit(run_dir)


def test_run_that_kept_its_promises_passes(logs: dict[str, Log], tmp_path: Path) -> None:
    result = audited(logs, tmp_path)
    assert result.passed and not result.unchecked, result.violations
    assert (result.steps, result.microbatches) == (6, 48)
    assert result.fenced == 1 and result.recovered > 0
    assert 0.5 < result.goodput < 1 and result.lost_time_s > 0
    assert result.accounts == [Account(stage, 48, 48, 0, 0, 0, 0) for stage in (0, 1)]
    assert "stage 0: 48 granted = 48 applied + 0 lost + 0 dropped + 0 in flight" in result.lines()


def accumulate_twice(log: Log) -> None:
    """As if a backward had been added twice."""
    at = next(i for i, entry in enumerate(log) if _event(entry) == "BackwardDone")
    mb = log[at]["event"]["microbatch"]
    run = next(entry for entry in log[:at][::-1] if _told(entry, "RunBackward", microbatch=mb))
    log[at + 1 : at + 1] = [run, log[at]]


def forget_one(log: Log) -> None:
    """As if a backward that has its receipt had never run."""
    at = next(i for i, entry in enumerate(log) if _event(entry) == "BackwardDone")
    del log[at]


def add_weights_twice(log: Log) -> None:
    """As if what a backward had left had been added twice."""
    at = next(i for i, entry in enumerate(log) if _event(entry) == "WeightGradientsDone")
    mb = log[at]["event"]["microbatch"]
    run = next(e for e in log[:at][::-1] if _told(e, "RunWeightGradients", microbatch=mb))
    log[at + 1 : at + 1] = [run, log[at]]


def forget_weights(log: Log) -> None:
    """As if only the first half of a backward had been added."""
    at = next(i for i, entry in enumerate(log) if _event(entry) == "WeightGradientsDone")
    del log[at]


def other_weights(log: Log) -> None:
    stepped = next(entry for entry in log if _event(entry) == "Stepped")
    stepped["event"]["digest"] = "something else"


def _event(entry: dict[str, Any]) -> str:
    return str(entry.get("event", {}).get("is"))


def _told(entry: dict[str, Any], what: str, **fields: Any) -> bool:
    wanted = {"is": what, **fields}
    return any(
        wanted == {key: instruction.get(key) for key in wanted}
        for instruction in entry.get("instructions", ())
    )


@pytest.mark.parametrize(
    ("whose", "tamper"),
    [
        ("s0p0", accumulate_twice),
        ("s0p0", forget_one),
        ("s1p1", add_weights_twice),
        ("s1p1", forget_weights),
    ],
)
def test_violation_names_the_microbatch_and_tells_its_history(
    logs: dict[str, Log], tmp_path: Path, whose: str, tamper: Callable[[Log], None]
) -> None:
    tamper(logs[whose])
    result = audited(logs, tmp_path)
    assert not result.passed
    assert "in its accumulator" in result.violations[0]
    name = result.violations[0].split()[1].rstrip(":")
    at = result.violations.index(f"history of microbatch {name}:")
    assert any("BackwardDone" in line for line in result.violations[at:])


def test_roster_that_leaves_a_microbatch_out(logs: dict[str, Log], tmp_path: Path) -> None:
    for entry in logs["trainer-0"]:
        for instruction in entry.get("instructions", ()):
            if instruction.get("message", {}).get("is") == "Prepare":
                instruction["message"]["roster"][0][1] = []
    result = audited(logs, tmp_path)
    assert any("entered stage" in violation for violation in result.violations)


def test_gradient_that_was_granted_and_is_in_no_version(
    logs: dict[str, Log], tmp_path: Path
) -> None:
    """The audit names it, and a gradient that is in a version and was never granted."""
    grants = [i for entry in logs["trainer-0"] for i in entry.get("instructions", ())]
    for told in (i["message"] for i in grants if "message" in i):
        if told["is"] in ("Granted", "Recover") and told["microbatch"][:2] == [2, 3]:
            told["microbatch"] = [2, 8, False]
    result = audited(logs, tmp_path)
    for stage, account in enumerate(result.accounts):
        assert account == Account(stage, 48, 47, 1, 0, 0, 1)
        assert f"stage {stage}: 1 gradients were granted, and are in no version" in (
            result.violations
        )


def test_replicas_that_differ(logs: dict[str, Log], tmp_path: Path) -> None:
    other_weights(logs["s0p0"])
    result = audited(logs, tmp_path)
    assert result.digest_mismatches == 1 and not result.passed


def test_missing_logs_are_said_to_be_missing(logs: dict[str, Log], tmp_path: Path) -> None:
    del logs["s0p1"]
    result = audited(logs, tmp_path)
    assert result.passed and result.unchecked == 6
    assert any("NOT CHECKED: 6" in line for line in result.lines())


def test_version_that_a_resumed_run_gave_up_is_not_committed(
    logs: dict[str, Log], tmp_path: Path
) -> None:
    """Announced by a trainer that died; the next one went back, and was stopped before it."""
    log = logs["trainer-0"]
    settings = {**log[0]["settings"], "resume": True, "epoch": log[0]["settings"]["epoch"] + 1}
    admit = to_plain(Send(PeerId("s0p0"), Admit(2, 1, 4, "", -1, 0.0, ())))
    log += [
        {**log[0], "settings": settings},
        {**log[-1], "now": log[-1]["now"] + 1, "instructions": [admit]},
    ]
    result = audited(logs, tmp_path)
    assert result.passed and result.steps == 4


def test_line_that_a_kill_has_torn_is_left_out(logs: dict[str, Log], tmp_path: Path) -> None:
    audited(logs, tmp_path)
    with (tmp_path / "peers" / "s1p0" / "events.jsonl").open("a") as file:
        file.write('{"now": 12.5, "event": {"is": "Forw')
    assert audit(tmp_path).passed


def test_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is .* a run folder"):
        audit(tmp_path)
