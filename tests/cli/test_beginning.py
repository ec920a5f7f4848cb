"""What is said as a run begins."""

from __future__ import annotations

import pytest

from swarmrt.cli.swarm.beginning import island_notes
from swarmrt.config_toml import load_config


@pytest.mark.parametrize(
    ("islands", "replicas", "said"),
    [
        (1, (1, 1), []),
        (2, (2, 3), []),
        (3, (4, 2, 3), ["islands at the beginning: 2, as stage 1 begins with 2 of its replicas"]),
    ],
)
def test_run_with_too_few_replicas_for_its_islands_says_so(
    islands: int, replicas: tuple[int, ...], said: list[str]
) -> None:
    asked = ["averaging.strategy=diloco", f"averaging.islands={islands}"]
    notes = island_notes(load_config(None, asked, {}), replicas)
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))
