"""The timeline says what the logs say, on one clock."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from swarmrt.errors import UsageError
from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Granted, Hail
from swarmrt.observe.trace.clocks import align, between
from swarmrt.observe.trace.deliveries import Deliveries
from swarmrt.observe.trace.trace import Trace, logs_of, trace
from swarmrt.scheduler.events import BackwardDone, DeadlinePassed, Received, Started
from swarmrt.scheduler.instructions import Forget, RunBackward, Send
from swarmrt.scheduler.recording import Header, Record, to_plain
from swarmrt.scheduler.settings import PeerSettings, TrainerSettings
from swarmrt.sim.engine.network import Weather
from swarmrt.sim.swarm.world import World
from tests.processes import swarmrt

Events = list[dict[str, Any]]
Log = list[dict[str, Any]]
TRAINER, PEER = PeerId("t"), PeerId("p")
STORM = Weather(lost=0.05, doubled=0.2, late=0.2, late_s=0.5)


def plain(record: Header | Record) -> dict[str, Any]:
    found: dict[str, Any] = to_plain(record)
    return found


TRAINERS = plain(
    Header(TrainerSettings(TRAINER, 0, 1, 0, 4, 2, 0, 0, 0, (1,), (), 30.0, resume=False))
)
PEERS = plain(Header(PeerSettings(PEER, TRAINER, 0, 1, 0, 1.0, 4, 100, 30.0)))


def write_logs(logs: dict[str, Log], run_dir: Path) -> Path:
    """As the processes would; the trainer's incarnations share a log."""
    for name, log in logs.items():
        folder = "trainer" if name.startswith("trainer") else f"peers/{name}"
        path = run_dir / folder / "events.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in log)
    return run_dir


def traced(run_dir: Path) -> tuple[Trace, Events]:
    out = run_dir / "trace.json"
    written = trace(run_dir, out)
    events: Events = json.loads(out.read_text())["traceEvents"]
    assert [path.name for path in run_dir.glob(".*")] == []
    return written, events


def spans_of(events: Events, group: str) -> Events:
    """Of the rows of this group, in all processes."""
    threads = {
        e["tid"]
        for e in events
        if e["name"] == "thread_name" and e["args"]["name"].split()[0] == group
    }
    return [e for e in events if e["ph"] == "X" and e["tid"] in threads]


def check_rows(events: Events) -> None:
    """Every span is in a named row of a named process, after the one before it."""
    processes = {e["pid"] for e in events if e["name"] == "process_name"}
    threads = {e["tid"]: e["pid"] for e in events if e["name"] == "thread_name"}
    rows: dict[int, Events] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            assert event["dur"] > 0 and threads[event["tid"]] == event["pid"]
            rows[event["tid"]].append(event)
    assert set(threads.values()) <= processes
    for row in rows.values():
        row.sort(key=lambda event: event["ts"])
        for one, other in zip(row, row[1:], strict=False):
            assert one["ts"] + one["dur"] <= other["ts"], (one, other)


def check_arrows(events: Events, slack_us: float) -> None:
    """Both ends are there, in spans of different processes; none comes before it left."""
    begin = {e["id"]: e for e in events if e["ph"] == "s"}
    end = {e["id"]: e for e in events if e["ph"] == "f"}
    assert begin.keys() == end.keys() and begin
    assert len(begin) == sum(e["ph"] in ("s", "f") for e in events) / 2
    starts = {(e["tid"], e["ts"]) for e in events if e["ph"] == "X"}
    for number, left in begin.items():
        came = end[number]
        assert left["pid"] != came["pid"]
        assert came["ts"] >= left["ts"] - slack_us
        assert {(left["tid"], left["ts"]), (came["tid"], came["ts"])} <= starts


def check_offsets(world: World, written: Trace) -> None:
    """The logs are the trainers', then the peers' by name."""
    clocks = [trainer.process.now for trainer in world.trainers]
    clocks += [world.peers[peer].process.now for peer in sorted(world.peers)]
    for now, offset in zip(clocks, written.offsets, strict=True):
        assert offset is not None
        assert abs(offset.seconds - (now - clocks[0])) <= offset.bound_s


@pytest.fixture(params=[0, 1], ids=["", "stale"])
def world(request: pytest.FixtureRequest) -> World:
    """Skewed clocks, a peer and the trainer killed, and the trainer back again."""
    staleness: int = request.param
    world = World([2, 2], 2, steps=6, microbatches=8, skew_s=300.0, staleness=staleness)
    world.run_until(version=2)
    world.clock.after(1.5, lambda: world.kill(PeerId("s1p0")))
    world.run_until(version=3)
    world.kill_trainer()
    world.clock.after(2.0, world.resume_trainer)
    world.run()
    return world


def test_a_run_with_skewed_clocks_and_faults(world: World, tmp_path: Path) -> None:
    written, events = traced(write_logs(world.log(), tmp_path))
    check_rows(events)
    check_offsets(world, written)
    assert all(offset and offset.bound_s < 0.5 for offset in written.offsets)
    assert written.processes[:2] == ["trainer", "trainer, start 2"]
    bounds = sum(2 * offset.bound_s for offset in written.offsets if offset is not None)
    check_arrows(events, slack_us=bounds * 1e6)
    names = {event["name"] for event in events if event["ph"] == "i"}
    assert {"recovery: fenced", "peer lost", "announced"} <= names
    assert {event["name"] for event in spans_of(events, "steps")} == {f"step {i}" for i in range(6)}


def test_every_accumulated_microbatch_has_its_backward(world: World, tmp_path: Path) -> None:
    logs: dict[str, Log] = json.loads(json.dumps(world.log()))
    _, events = traced(write_logs(logs, tmp_path))
    named = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    shown = {
        (named[e["pid"]].split()[-1], e["name"].split()[-1])
        for e in spans_of(events, "compute")
        if e["name"].startswith("backward")
    }
    receipts = {
        (name, "{}.{}".format(*instruction["message"]["microbatch"]))
        for name, log in logs.items()
        for entry in log
        for instruction in entry.get("instructions", ())
        if instruction.get("message", {}).get("is") == "Accumulated"
    }
    assert receipts and receipts <= shown


def test_grant_that_comes_again_is_not_queued_again(tmp_path: Path) -> None:
    """A claim was late and repeated, and so was its answer."""
    mb = MicrobatchId(0, 3)
    granted = Received(TRAINER, Granted(1, mb, (PEER,), (0,)))
    records = [
        Record(1.0, granted, []),
        Record(1.25, DeadlinePassed("overdue"), [RunBackward(mb, accumulate=True)]),
        Record(1.5, granted, []),
        Record(2.0, BackwardDone(mb, 0.5, 0), [Forget(mb)]),
    ]
    write_logs({"trainer": [TRAINERS], "p": [PEERS, *map(plain, records)]}, tmp_path)
    _, events = traced(tmp_path)
    [queued], [computed] = spans_of(events, "queue"), spans_of(events, "compute")
    assert (queued["name"], queued["ts"], queued["dur"]) == ("backward 0.3", 0, 250_000)
    assert (computed["name"], computed["ts"], computed["dur"]) == ("backward 0.3", 500_000, 500_000)


@pytest.mark.parametrize("seed", range(4))
def test_storm_leaves_the_rows_in_order(seed: int, tmp_path: Path) -> None:
    """Messages are lost, come twice and overtake each other."""
    world = World([2, 1, 2], seed, steps=3, weather=STORM, skew_s=50.0)
    world.clock.after(8.0, lambda: setattr(world.network, "weather", Weather()))
    world.run()
    written, events = traced(write_logs(world.log(), tmp_path))
    check_rows(events)
    check_offsets(world, written)


@pytest.mark.parametrize("seed", range(20))
def test_offsets_are_within_their_bounds(seed: int) -> None:
    """Of any clocks, by messages that take any time, over links that do not join all pairs."""
    rng = random.Random(seed)
    clocks = [0.0, *(rng.uniform(-1e6, 1e6) for _ in range(7))]
    shortest = {}
    for here in range(1, 8):
        for there in {rng.randrange(here), rng.randrange(here)}:
            shortest[here, there] = clocks[there] - clocks[here] + rng.uniform(0, 0.2)
            shortest[there, here] = clocks[here] - clocks[there] + rng.uniform(0, 0.2)
    for true, offset in zip(clocks, align(shortest, 8), strict=True):
        assert offset is not None and offset.bound_s < 2
        assert abs(offset.seconds - true) <= offset.bound_s


def test_equal_delays_give_the_offset_itself() -> None:
    assert between(5.0 + 0.03, -5.0 + 0.03).seconds == pytest.approx(5.0)


def test_processes_of_one_machine_have_one_clock() -> None:
    offset = between(0.002, 0.050)
    assert offset.seconds == 0.0 and offset.bound_s == pytest.approx(0.051)


def test_messages_one_way_only_give_no_bound() -> None:
    offsets = align({(0, 1): 7.0, (2, 1): -1.0}, 4)
    assert offsets[1] is not None and offsets[1].seconds == 7.0
    assert offsets[2] is not None and offsets[2].seconds == 8.0
    assert math.isinf(offsets[2].bound_s) and offsets[3] is None


def test_process_that_nobody_heard_begins_with_the_trainer(tmp_path: Path) -> None:
    trainers, peers = (
        [Record(5.0, Started(), []), Record(6.0, Started(), [])],
        Record(9e5, Started(), []),
    )
    logs = {"trainer": [TRAINERS, *map(plain, trainers)], "p": [PEERS, plain(peers)]}
    written, _ = traced(write_logs(logs, tmp_path))
    assert written.offsets[1] is None and written.seconds == pytest.approx(1.0)
    assert "clock not known" in written.lines()[2]


def test_process_that_was_started_again_has_another_clock(tmp_path: Path) -> None:
    """As after a reboot of its machine. What both incarnations said alike tells nothing."""

    def sends(now: float, to: str, what: int) -> dict[str, Any]:
        send = Send(PeerId(to), Hail(what))
        return plain(Record(now, DeadlinePassed("beacon"), [send]))

    def gets(now: float, sender: str, what: int) -> dict[str, Any]:
        return plain(Record(now, Received(PeerId(sender), Hail(what)), []))

    logs = {
        "trainer": [
            TRAINERS,
            sends(10.0, "p", 1),
            *[gets(10.2, "p", 2), gets(10.2, "p", 5)],
            sends(20.0, "p", 3),
            gets(20.2, "p", 4),
            gets(20.3, "p", 2),
        ],
        "p": [
            *[PEERS, gets(510.1, "t", 1), sends(510.1, "t", 2), sends(510.1, "t", 5)],
            *[PEERS, gets(7.1, "t", 3), sends(7.1, "t", 4), sends(7.2, "t", 2)],
        ],
    }
    written, _ = traced(write_logs(logs, tmp_path))
    assert written.processes == ["trainer", "stage 0 · peer p", "stage 0 · peer p, start 2"]
    assert [o.seconds for o in written.offsets if o] == pytest.approx([0.0, 500.0, -13.0])
    assert written.seconds == pytest.approx(10.3)


def test_line_that_a_kill_has_torn_is_left_out(world: World, tmp_path: Path) -> None:
    write_logs(world.log(), tmp_path)
    before, _ = traced(tmp_path)
    with (tmp_path / "peers" / "s1p0" / "events.jsonl").open("a") as file:
        file.write('{"now": 12.5, "event": {"is": "Forw')
    assert traced(tmp_path)[0] == before


def test_run_that_goes_on_meanwhile(world: World, tmp_path: Path) -> None:
    """What is added between the two readings waits for the next trace."""
    logs: dict[str, Log] = json.loads(json.dumps(world.log()))
    rest = {name: log[:1] + log[len(log) // 2 :] for name, log in logs.items()}
    write_logs({name: log[: len(log) // 2] for name, log in logs.items()}, tmp_path)
    deliveries = Deliveries(logs_of(tmp_path))
    before = list(deliveries.records())
    write_logs(rest, tmp_path)
    assert list(deliveries.records()) == before


def test_faults_made_on_purpose_are_shown(world: World, tmp_path: Path) -> None:
    """They are noted by the time of day."""
    write_logs(world.log(), tmp_path)
    _, events = traced(tmp_path)
    commits = [e for e in spans_of(events, "rounds") if e["name"].startswith("commit")]
    ends = {e["name"].split()[1]: (e["ts"] + e["dur"]) / 1e6 for e in commits}
    metrics = [{"time": 1e9 + end, "version": int(step) + 1} for step, end in ends.items()]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics))
    (tmp_path / "faults.jsonl").write_text('{"time": 1000000012.5, "kind": "kill"}\n')
    _, events = traced(tmp_path)
    assert [e["ts"] for e in events if e["name"] == "kill"] == [12_500_000]


def test_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is .* a run folder"):
        trace(tmp_path, tmp_path / "trace.json")


def test_run_that_has_only_begun(tmp_path: Path) -> None:
    write_logs({"trainer": [TRAINERS]}, tmp_path)
    with pytest.raises(UsageError, match="no events yet"):
        trace(tmp_path, tmp_path / "trace.json")


def test_out_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    write_logs(world.log(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/trace.json: cannot be written"):
        trace(tmp_path, tmp_path / "file" / "trace.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="folder: cannot be written"):
        trace(tmp_path, tmp_path / "folder")
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_command(world: World, tmp_path: Path) -> None:
    write_logs(world.log(), tmp_path)
    done = swarmrt("trace", tmp_path, "--out", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    assert "open it at https://ui.perfetto.dev" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    done = swarmrt("trace", tmp_path / "nowhere")
    assert done.returncode == 2 and "is" in done.stderr and "Traceback" not in done.stderr
