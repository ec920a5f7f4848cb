"""The command `swarmrt bench join`: newcomers on this machine, or behind a home link."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarmrt.errors import UsageError

if TYPE_CHECKING:
    from swarmrt.lab.homes.joining import Joined

CONFIG = """
[run]
name = "bench-join"
steps = 100000
[model]
layers = 7
width = 512
heads = 8
kv_heads = 8
sequence = 64
[stages]
layers = [6, 1]
[batch]
microbatch = 1
microbatches = 8
[evaluation]
every_steps = 0
[checkpoint]
every_steps = 0
"""


def join(
    cases: list[str] = typer.Argument(
        None, metavar="[CASE]...", help="can, cannot; both by default. With --bandwidth only."
    ),
    bandwidth: str | None = typer.Option(
        None,
        metavar="20mbit",
        help="Come by a link like that, in network namespaces made for it (root, iproute2).",
    ),
    replicas: str = typer.Option("1,2", help="Before somebody comes; each number is measured."),
    runs: int = typer.Option(1, min=1, help="Of each; they begin at other phases of a step."),
    keep: Path | None = typer.Option(
        None, metavar="DIR", help="Where to keep the runs' folders, for `swarmrt trace`."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Time a newcomer's start to its first microbatch, in a stage of 20 million parameters.

    With --bandwidth: does whoever has a link for it get in at the second commit and serve its
    share, is whoever has not told why, and does nobody wait? Exits with 1 where that fails.
    """
    if bandwidth is None:
        _join_here(as_json)
        return
    from swarmrt.lab.homes.joining import CASES, check_here, measure
    from swarmrt.runtime.limits.rates import parse_rate

    bytes_per_s = parse_rate("--bandwidth", bandwidth)
    names = cases or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise UsageError(f"there is no case {unknown[0]!r}; there are {', '.join(CASES)}")
    numbers = _numbers(replicas)
    check_here(bandwidth)
    found: dict[str, object] = {"bandwidth": bandwidth}
    failed = 0
    for label, name, number in [(f"{n}_{r}", n, r) for n in names for r in numbers]:
        done: list[Joined] = []
        for run in range(runs):
            with tempfile.TemporaryDirectory(prefix="swarmrt-bench-") as folder:
                place = keep / f"{label}_{run}" if keep else Path(folder)
                phase = run / runs
                done.append(measure(CASES[name], number, bandwidth, bytes_per_s, phase, place))
            if not as_json:
                print(_line(label, done[-1]), flush=True)
        passed = sum(one.passed for one in done)
        failed += len(done) - passed
        found[label] = {"passed": passed, "runs": [asdict(one) for one in done]}
    if as_json:
        print(json.dumps({**found, "failed": failed}))
    if failed:
        raise typer.Exit(1)


def _numbers(text: str) -> Sequence[int]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) for word in words):
        raise UsageError(f"--replicas {text}: write the numbers to measure, like 1,2")
    return [int(word) for word in words]


def _line(label: str, found: Joined) -> str:
    """Return a line for people."""
    if found.told is not None:
        what = f"told after {found.told_s:.1f} s: {found.told}"
    elif found.in_at_commit is not None:
        share = "" if found.share is None else f", serving {found.share:.2f} of the step after"
        what = f"in at commit {found.in_at_commit}{share}"
    else:
        what = "neither in nor told"
    return (
        f"{'ok' if found.passed else 'FAILED':<7}{label}: up after {found.up_s:.1f} s, {what}; "
        f"gaps of {found.median_gap_s:.1f} s (median), {found.longest_gap_s:.1f} s (longest, of at "
        f"most {found.bound_s:.1f})"
    )


def _join_here(as_json: bool) -> None:
    from swarmrt import lab
    from swarmrt.lab.bench.joining import join as measure

    with tempfile.TemporaryDirectory(prefix="swarmrt-bench-") as folder:
        config = Path(folder) / "bench.toml"
        config.write_text(CONFIG, encoding="utf-8")
        run_dir = Path(folder) / "run"
        with lab.LocalSwarm(
            config, replicas=[1, 1], run_dir=run_dir, threads=1, forks=False
        ) as swarm:
            joined = measure(swarm, stage=0)
    if as_json:
        print(json.dumps(asdict(joined)))
    else:
        print(
            f"up after {joined.ready_s:.1f} s, state after {joined.state_s:.1f} s, first "
            f"microbatch after {joined.first_microbatch_s:.1f} s; the longest gap between commits "
            f"was {joined.longest_gap_s:.1f} s, the median {joined.median_gap_s:.1f} s"
        )
