"""The list of who was let into a run, as `swarmrt members` shows it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from swarmrt.ids import PeerId, peer_of
from swarmrt.log_files import json_lines
from swarmrt.trust.book import AccessBook, Joined


def describe_members(run_dir: Path, book: AccessBook) -> Iterator[str]:
    """Yield a table: peer, stages, commits taken part in, since when, and how it came."""
    taken, commits = _commits(run_dir / "metrics.jsonl")
    yield f"{'peer':<46}  {'stages':<8}  {'commits':>12}  {'since':<16}  by"
    for peer, joined in sorted(book.members.items(), key=lambda item: item[1].at):
        share = f"{taken[peer]} of {commits}"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(joined.at))
        stages = ",".join(map(str, joined.stages))
        yield f"{peer:<46}  {stages:<8}  {share:>12}  {since:<16}  {_by(joined)}"
    for who, why in sorted(book.revoked.items()):
        yield f"{who:<46}  revoked: {why}"


def _by(joined: Joined) -> str:
    if not joined.invitation:
        return "open access"
    note = f" ({joined.note})" if joined.note else ""
    return f"invitation {joined.invitation}{note}"


def _commits(path: Path) -> tuple[Counter[PeerId], int]:
    """Return at how many commits each peer was, and how many there were."""
    taken: Counter[PeerId] = Counter()
    commits = 0
    if not path.exists():
        return taken, commits
    for entry in json_lines(path):
        if (digests := entry.get("digests")) is not None:
            commits += 1
            taken.update({peer_of(PeerId(seat)) for replicas in digests for seat in replicas})
    return taken, commits
