"""What the bench of recovery reads from a trainer's log."""

from __future__ import annotations

from pathlib import Path

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.lab.bench.recovery import Disturbance, Recovery, false_alarms, recoveries
from swarmrt.messages import Accumulated, Beacon, Recover
from swarmrt.scheduler.events import DeadlinePassed, Received
from swarmrt.scheduler.instructions import ReportRecovery, Send
from swarmrt.scheduler.recording import Record, to_json

SERVICE_S = 0.1
OTHER = PeerId("other")


def beacon(now: float, peer: str) -> Record:
    done = int(now / SERVICE_S)
    message = Beacon(
        1, 1, 1, "serving", 7, "", -1, -1, 0.0, queued=1, done=done, service_s=SERVICE_S
    )
    return Record(now, Received(PeerId(peer), message), [])


def fenced(now: float, peer: str, recovered: int = 0) -> Record:
    report = ReportRecovery(7, "fenced", 1, f"stage 1, {peer}: silent")
    sent = [
        Send(OTHER, Recover(1, MicrobatchId(7, index), (OTHER,), (1,)))
        for index in range(recovered)
    ]
    return Record(now, DeadlinePassed("beacons"), [report, *sent])


def receipt(now: float, index: int) -> Record:
    return Record(now, Received(OTHER, Accumulated(1, 1, MicrobatchId(7, index), 1)), [])


def run_of(folder: Path, records: list[Record]) -> Path:
    (folder / "trainer").mkdir()
    lines = [to_json(record) + b"\n" for record in sorted(records, key=lambda record: record.now)]
    (folder / "trainer" / "events.jsonl").write_bytes(b"".join(lines))
    return folder


def beacons_until(end: float, *peers: str) -> list[Record]:
    return [beacon(0.5 * beat, peer) for peer in peers for beat in range(int(2 * end))]


def test_recovery_is_timed_from_the_fault_to_the_first_and_the_last_receipt(tmp_path: Path) -> None:
    entries = [*beacons_until(10.0, "late"), fenced(13.0, "late", recovered=2)]
    entries += [receipt(13.2, 1), receipt(13.6, 0)]
    fault = Disturbance(10.0, "stop", "late", 1, over_at=20.0)
    (found,) = recoveries(run_of(tmp_path, entries), [fault])
    assert isinstance(found, Recovery) and found.microbatches == 2 and found.service_s == SERVICE_S
    times = (found.noticed_s, found.first_s, found.all_s)
    assert [round(seconds, 6) for seconds in times] == [3.0, 3.2, 3.6]
    assert 1.5 <= found.deadline_s < 2 and found.first_s < found.bound_s < 5


def test_whoever_is_fenced_though_it_was_there_is_a_false_alarm(tmp_path: Path) -> None:
    entries = [fenced(13.0, "stopped"), fenced(40.0, "stalled"), fenced(60.0, "stopped")]
    disturbances = [
        Disturbance(10.0, "stop", "stopped", 1, over_at=20.0),
        Disturbance(38.0, "stall", "stalled", 1, over_at=41.0),
    ]
    run_dir = run_of(tmp_path, entries)
    alarms = false_alarms(run_dir, disturbances)
    assert alarms == ["stage 1, stalled: silent", "stage 1, stopped: silent"]
    assert not recoveries(run_dir, disturbances), "nobody's work was lost"
