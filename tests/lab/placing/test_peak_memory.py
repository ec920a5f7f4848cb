"""The peak memory of a peer, predicted."""

from __future__ import annotations

import pytest

from swarmrt.config_toml import parse_config
from swarmrt.lab.placing.peak_memory import peak_bytes, process_bytes, snapshots_kept
from swarmrt.model.sizing import MOST_SNAPSHOTS, footprint
from swarmrt.runtime.process.vitals import resident_bytes


@pytest.mark.parametrize(
    ("every_steps", "step_s", "kept"),
    [(0, 1.0, 0), (10, 0.1, MOST_SNAPSHOTS), (10, 9.0, 2), (100, 60.0, 1)],
)
def test_states_for_others_are_as_many_as_checkpoints_leave(
    every_steps: int, step_s: float, kept: int
) -> None:
    config = parse_config({"checkpoint": {"every_steps": every_steps}}, "test")
    assert snapshots_kept(config, step_s) == kept


def test_peak_is_the_process_and_what_it_computes_and_keeps() -> None:
    sections = {"stages": {"layers": [2, 2]}, "model": {"layers": 4, "width": 64}}
    config = parse_config(sections | {"checkpoint": {"every_steps": 0}}, "test")
    needed = footprint(config, 0)
    alone = needed.state_bytes + needed.activations_bytes + needed.frames_bytes
    assert peak_bytes(needed, config, 1.0, process=7) == alone + 7
    assert needed.peak_bytes(2) - needed.peak_bytes(0) == 2 * needed.snapshot_bytes > 0


@pytest.mark.skipif(resident_bytes() is None, reason="this system does not tell")
def test_process_without_a_stage_has_its_libraries() -> None:
    assert 50e6 < process_bytes() < 2e9
