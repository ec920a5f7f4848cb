"""The members of a run, and at how many of its commits each was."""

from __future__ import annotations

import json
from pathlib import Path

from swarmrt.ids import PeerId, seat_of
from swarmrt.observe.live.members import describe_members
from swarmrt.trust.book import AccessBook, Joined


def test_a_peer_was_at_a_commit_with_any_of_its_seats(tmp_path: Path) -> None:
    """A peer with two seats counts once; a stage of two replicas has a seat of each."""
    both, one = PeerId("A"), PeerId("B")
    seats = [{seat_of(both, 0): "x"}, {seat_of(both, 1): "y", seat_of(one, 1): "y"}]
    later = [{seat_of(both, 0): "x"}, {seat_of(both, 1): "y"}]
    lines = [{"version": 1, "digests": seats}, {"version": 2, "digests": later}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    book = AccessBook("open", 2)
    book.read([Joined(0.0, both, ""), Joined(1.0, one, "")])
    _, first, second = describe_members(tmp_path, book)
    assert first.startswith("A ") and "2 of 2" in first
    assert second.startswith("B ") and "1 of 2" in second
