"""The command `swarmrt bench`: measurements of a swarm on this machine, printed."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from swarmrt.cli.experiments import bench_join
from swarmrt.cli.process.signals import fail_on_signals
from swarmrt.errors import RunError, UsageError

NOT_MEASURED = "nothing is measured to the end; begin again"

bench = typer.Typer(help="Measure a swarm on this machine.", no_args_is_help=True)

CONFIG = """
[run]
name = "bench"
steps = 100000
[model]
layers = 3
width = 128
sequence = 64
[stages]
count = 3
[batch]
microbatch = 4
microbatches = 16
[evaluation]
every_steps = 0
[checkpoint]
every_steps = 0
"""


@bench.callback()
def _group() -> None:
    """Measure a swarm on this machine."""


@bench.command()
@fail_on_signals(NOT_MEASURED)
def recovery(
    faults: int = typer.Option(
        24, min=1, help="How many peers are killed, stopped, or made to stand still for 2 s."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Time a SIGKILL or SIGSTOP to the receipt of the first recovered microbatch. Count those who
    are fenced though they were there."""
    from swarmrt import lab
    from swarmrt.lab.bench.recovery import disturb, false_alarms, recoveries

    with tempfile.TemporaryDirectory(prefix="swarmrt-bench-") as folder:
        config = Path(folder) / "bench.toml"
        config.write_text(CONFIG, encoding="utf-8")
        run_dir = Path(folder) / "run"
        with lab.LocalSwarm(
            config, replicas=[2, 2, 2], run_dir=run_dir, threads=1, forks=False
        ) as swarm:
            disturbances = disturb(swarm, faults)
            swarm.wait(swarm.version + 2)
        found = recoveries(run_dir, disturbances)
        alarms = false_alarms(run_dir, disturbances)
    if not found:
        raise RunError("no fault hit a peer that had work of the step; try more --faults")
    result: dict[str, object] = {"faults": len(disturbances), "measured": len(found)}
    for kind in ("kill", "stop"):
        times = [r.first_s for r in found if r.kind == kind]
        if not times:
            continue
        within = [r.first_s <= r.bound_s for r in found if r.kind == kind]
        result[kind] = {
            "number": len(times),
            "median_s": statistics.median(times),
            "worst_s": max(times),
            "within_bound": sum(within),
        }
        if not as_json:
            print(
                f"{kind}: {len(times)} measured, first receipt after {statistics.median(times):.2f}"
                f" s (median), {max(times):.2f} s (worst); {sum(within)} within their bound"
            )
    stalls = sum(disturbance.kind == "stall" for disturbance in disturbances)
    result["stalls"], result["false_alarms"] = stalls, alarms
    if not as_json:
        print(f"stall: {stalls} of 2 s; fenced without need: {len(alarms)}")
        print("".join(f"  {alarm}\n" for alarm in alarms), end="")
    result["recoveries"] = [asdict(r) | {"bound_s": r.bound_s} for r in found]
    if as_json:
        print(json.dumps(result))


bench.command("join")(fail_on_signals(NOT_MEASURED)(bench_join.join))


@bench.command()
@fail_on_signals(NOT_MEASURED)
def memory(
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Measure what a peer takes beyond its stage, with 20 million parameters and two replicas."""
    from swarmrt import lab
    from swarmrt.lab.bench.memory import measure

    with tempfile.TemporaryDirectory(prefix="swarmrt-bench-") as folder:
        config = Path(folder) / "bench.toml"
        config.write_text(bench_join.CONFIG, encoding="utf-8")
        run_dir = Path(folder) / "run"
        with lab.LocalSwarm(
            config, replicas=[2, 1], run_dir=run_dir, threads=1, forks=False
        ) as swarm:
            swarm.wait(1)
            found = asdict(measure(swarm, stage=0))
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name.removesuffix('_bytes'):<12}{value / 1e6:8.0f} MB")


@bench.command()
@fail_on_signals(NOT_MEASURED)
def trainer(
    steps: int = typer.Option(40, min=1, help="Of 256 microbatches."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Measure how many microbatches a second the trainer takes through claim, receipts and
    commit."""
    from swarmrt.lab.bench.trainer_load import microbatches_per_s

    with tempfile.TemporaryDirectory(prefix="swarmrt-bench-") as folder:
        log = Path(folder) / "events.jsonl"
        found = {
            "core_microbatches_per_s": microbatches_per_s(steps, 256),
            "with_frames_and_log_microbatches_per_s": microbatches_per_s(steps, 256, log),
        }
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name.removesuffix('_microbatches_per_s'):<24}{value:10.0f} microbatches/s")


@bench.command()
@fail_on_signals(NOT_MEASURED)
def pipeline(
    settings: list[str] = typer.Argument(
        None,
        metavar="[SETTING]...",
        help="equal, spread, latency, far, …, or averaging; by default all but that.",
    ),
    emulate: bool = typer.Option(
        True, "--emulate", help="Computing is a calibrated sleep. (There is no other kind.)"
    ),
    microbatches: int | None = typer.Option(None, min=1, help="In a step; else as documented."),
    steps: int | None = typer.Option(None, min=1, help="To measure, after the warm-up."),
    staleness: int = typer.Option(1, min=0, max=1, help="As optimizer.staleness."),
    strategies: str = typer.Option(
        "sync,staleness,async,diloco", help="Of averaging: what is measured beside each other."
    ),
    link_rate: str | None = typer.Option(
        None, metavar="RATE", help="Of averaging: what a process sends at most; else 50mbit."
    ),
    keep: Path | None = typer.Option(
        None, metavar="DIR", help="Where to keep the runs' folders, for `swarmrt trace`."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Measure 4 stages x 2 replicas of emulated devices: throughput over the best they could do."""
    from swarmrt.cli.options.rates import parse_link_rate
    from swarmrt.lab.bench.averaging import STRATEGIES
    from swarmrt.lab.bench.pipeline import SETTINGS, changed, measure

    names = settings or list(SETTINGS)
    unknown = [name for name in names if name not in (*SETTINGS, "averaging")]
    if unknown:
        there_are = ", ".join((*SETTINGS, "averaging"))
        raise UsageError(f"there is no setting {unknown[0]!r}; there are {there_are}")
    parse_link_rate(link_rate)
    chosen = [strategy.strip() for strategy in strategies.split(",")]
    unknown = [strategy for strategy in chosen if strategy not in STRATEGIES]
    if unknown:
        there_are = ", ".join(STRATEGIES)
        raise UsageError(f"there is no strategy {unknown[0]!r}; there are {there_are}")
    found: dict[str, object] = {}
    if "averaging" in names:
        changes = {"steps": steps, "link_rate": link_rate}
        found |= _strategies(chosen, changes, keep, as_json=as_json)
    for name in names:
        if name == "averaging":
            continue
        numbers = {"microbatches": microbatches, "steps": steps, "staleness": staleness}
        setting = changed(SETTINGS[name], **numbers)
        with tempfile.TemporaryDirectory(prefix="swarmrt-bench-") as folder:
            result = measure(setting, keep or Path(folder))
        found[f"{name}_over_ideal"] = result.pop("over_ideal")
        found[name] = result
        if not as_json:
            print(
                f"{name:<8} {result['microbatches_per_s']:8.2f} of "
                f"{result['ideal_microbatches_per_s']:.2f} microbatches/s: "
                f"{found[f'{name}_over_ideal']:.3f}",
                flush=True,
            )
    if as_json:
        print(json.dumps(found))


def _strategies(
    names: Sequence[str], changes: Mapping[str, Any], keep: Path | None, *, as_json: bool
) -> dict[str, object]:
    """Measure ways of making versions where links are narrow."""
    from swarmrt.lab.bench.averaging import STRATEGIES, measure_strategy
    from swarmrt.lab.bench.pipeline import changed

    found: dict[str, object] = {}
    for name in names:
        setting = changed(STRATEGIES[name], **changes)
        with tempfile.TemporaryDirectory(prefix="swarmrt-bench-") as folder:
            result = measure_strategy(setting, keep or Path(folder))
        found[f"averaging_{name}_over_ideal"] = result.pop("over_ideal")
        found[f"averaging_{name}"] = result
        if not as_json:
            print(
                f"{name:<10}{found[f'averaging_{name}_over_ideal']:6.3f} of what the devices could "
                f"do; paused for {result['longest_pause_s']:.2f} s at most, "
                f"{result['late_fraction']:.1%} late",
                flush=True,
            )
    return found


@bench.command()
@fail_on_signals(NOT_MEASURED)
def calibration(
    settings: list[str] = typer.Argument(
        None, metavar="[SETTING]...", help="equal, spread, latency, churn; by default all of them."
    ),
    steps: int | None = typer.Option(None, min=3, help="To measure, after the warm-up."),
    keep: Path | None = typer.Option(
        None, metavar="DIR", help="Where to keep the runs' folders, for `simulate --like`."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Measure 4 stages x 2 replicas of emulated devices, beside what the simulator predicts."""
    from swarmrt.lab.bench.calibration import CALIBRATED, calibrate

    names = settings or list(CALIBRATED)
    unknown = [name for name in names if name not in CALIBRATED]
    if unknown:
        there_are = ", ".join(CALIBRATED)
        raise UsageError(f"there is no setting {unknown[0]!r}; there are {there_are}")
    found: dict[str, object] = {}
    errors = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="swarmrt-bench-") as folder:
            compared = calibrate(name, keep or Path(folder), steps)
        found[name] = compared.to_plain()
        errors.append(abs(compared.ratio - 1))
        if not as_json:
            note = f"; {compared.note}" if compared.note else ""
            print(
                f"{name:<8} predicted {compared.predicted:6.2f}, measured {compared.measured:6.2f} "
                f"microbatches/s: {compared.ratio:.3f}{note}",
                flush=True,
            )
    found |= {"mean_error": sum(errors) / len(errors), "worst_error": max(errors)}
    if as_json:
        print(json.dumps(found))
    else:
        print(f"off by {found['mean_error']:.1%} in the mean, {found['worst_error']:.1%} at worst")


@bench.command()
@fail_on_signals(NOT_MEASURED)
def uplink(
    rate: str = typer.Option("45mbit", "--link-rate", metavar="RATE", help="Beside no bound."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Time 100 kB of activation over a line of 50 Mb/s, alone and beside a round."""
    from swarmrt.cli.options.rates import parse_link_rate
    from swarmrt.cli.process.running import new_loop
    from swarmrt.lab.bench.yielding import measure

    found: dict[str, object] = {}
    for bound, name in ((None, "no bound"), (parse_link_rate(rate), rate)):
        for on_one_link in (False, True):
            with asyncio.Runner(loop_factory=new_loop) as runner:
                times = runner.run(measure(bound, on_one_link=on_one_link))
            what = f"{name}, {'one link' if on_one_link else 'two links'}"
            found[what] = times
            if not as_json:
                print(
                    f"{what:<24}{times['alone_s'] * 1e3:5.0f} ms alone, "
                    f"{times['beside_a_round_s'] * 1e3:5.0f} ms beside a round of "
                    f"{times['round_s']:.1f} s",
                    flush=True,
                )
    if as_json:
        print(json.dumps(found))


@bench.command()
@fail_on_signals(NOT_MEASURED)
def link(
    rounds: int = typer.Option(5, min=1, help="Every way of talking is measured in each."),
    messages: int = typer.Option(12, min=1, help="Of 16 MiB, a round."),
    pings: int = typer.Option(200, min=10, help="Round trips, a round."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Links between two processes on loopback, beside what they are made of."""
    from swarmrt.cli.process.running import new_loop
    from swarmrt.lab.bench.linking import RATIOS, measure

    found = measure(rounds, messages, pings, new_loop)
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        if name.endswith("_bytes_per_s"):
            print(f"{name.removesuffix('_bytes_per_s'):<44}{value / 1e9:8.2f} GB/s")
        elif name.endswith("_s"):
            print(f"{name.removesuffix('_s'):<44}{value * 1e3:8.3f} ms")
        elif name in RATIOS:
            print(f"{name:<44}{value:8.2f}")


@bench.command()
@fail_on_signals(NOT_MEASURED)
def codec(
    mebibytes: int = typer.Option(64, min=1, help="Of fp32 values; 64 is past most caches."),
    rounds: int = typer.Option(15, min=1, help="Everything is measured in each."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Codecs and digests on one thread of this CPU, beside copying the same fp32 values."""
    from swarmrt.lab.bench.codecs import measure

    found = measure(mebibytes, rounds)
    if as_json:
        print(json.dumps(found))
        return
    print(f"codecs: {found.pop('implementation')}")
    for name, value in found.items():
        if name.endswith("_bytes_per_s"):
            print(f"{name.removesuffix('_bytes_per_s'):<44}{float(value) / 1e9:8.2f} GB/s")
        elif "_over_" in name:
            print(f"{name:<44}{float(value):8.2f}")
