"""The measurement of the trainer runs to its end, with and without a log."""

from __future__ import annotations

from pathlib import Path

from swarmrt.lab.bench.trainer_load import microbatches_per_s


def test_a_run_comes_to_its_end(tmp_path: Path) -> None:
    assert microbatches_per_s(3, 16) > 0


def test_with_a_log_every_event_is_in_it(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    assert microbatches_per_s(3, 16, log) > 0
    lines = log.read_text().splitlines()
    assert sum('"Accumulated"' in line for line in lines) == 3 * 16 * 4
