"""The command `swarmrt simulate`: a swarm under churn, with a policy, in virtual time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from swarmrt.cli.process.signals import fail_on_signals
from swarmrt.errors import UsageError
from swarmrt.foreign import for_terminal, printable

if TYPE_CHECKING:
    from swarmrt.sim.fluid.result import Result
    from swarmrt.sim.fluid.scene import Scene

COLUMNS = {
    "policy": "policy",
    "throughput_over_oracle": "of oracle b",
    "throughput_over_free_oracle": "of oracle a",
    "switches": "switches",
    "downloads": "downloads",
    "extra_downloads_per_peer": "extra a peer",
    "lost_states": "lost states",
    "serving_lost_s": "not serving s",
}


@fail_on_signals("there is no result; begin again")
def simulate(
    scenario: Path | None = typer.Argument(None, metavar="[SCENARIO.toml]"),
    trace: Path | None = typer.Option(
        None, metavar="FILE", help="Recorded churn: CSV lines time_ms,add|remove,name."
    ),
    like: Path | None = typer.Option(
        None, metavar="RUN_DIR", help="A run: predict its throughput, beside the measured one."
    ),
    out: Path | None = typer.Option(
        None, metavar="FILE", help="With --like: write the scenario that is like the run."
    ),
    stages: int | None = typer.Option(None, min=1, max=1024, help="With --trace: equal stages."),
    download: float | None = typer.Option(
        None, min=0, max=1e6, metavar="SECONDS", help="With --trace: to load a stage's state."
    ),
    spread: float | None = typer.Option(
        None, min=1, max=1e4, help="With --trace: fastest over slowest peer; default 1."
    ),
    detect: float | None = typer.Option(
        None, min=0, max=1e5, metavar="SECONDS", help="With --trace: to notice a loss; default 5."
    ),
    decide: float | None = typer.Option(
        None, min=0, max=1e5, metavar="SECONDS", help="With --trace: to agree; default 2."
    ),
    step: float | None = typer.Option(
        None,
        min=0.001,
        max=1e9,
        metavar="SECONDS",
        help="With --trace: a step's length; default 120.",
    ),
    noise: float | None = typer.Option(
        None, min=0, max=1, help="With --trace: of a microbatch's duration; default 0."
    ),
    fidelity: str = typer.Option(
        "fluid",
        help="How much is played: fluid (rates), flow (each microbatch) or full (each message).",
    ),
    policy: list[str] = typer.Option(
        ["swarmrt"], help="A policy, or several: each --policy P is simulated."
    ),
    seed: int = typer.Option(0, min=0, help="Everything that is drawn follows from it."),
    seeds: int = typer.Option(1, min=1, max=10_000, help="So many seeds, and their mean."),
    jobs: int = typer.Option(1, min=1, max=256, help="Processes."),
    plot: Path | None = typer.Option(None, metavar="FILE", help="Write a picture of one result."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Simulate a scenario, or equal stages under recorded churn, with a rebalancing policy.

    Policies: swarmrt[:SHARE of standby], swarm:T, swarm-literal:T, petals:Q, gwtf, static, none,
    oracle (b), oracle-free (a), or your own as package.module:Class.
    """
    from swarmrt.sim.fidelity import check_fidelity
    from swarmrt.sim.fidelity import simulate as play
    from swarmrt.sim.fluid.policies.named import check_policy
    from swarmrt.sim.fluid.sweep import Job, sweep

    shape = {
        "download_s": download,
        "spread": spread,
        "detect_s": detect,
        "decide_s": decide,
        "step_s": step,
        "noise": noise,
    }
    given = {name: value for name, value in shape.items() if value is not None}
    if like is not None:
        others = (fidelity, policy, seeds, jobs) != ("fluid", ["swarmrt"], 1, 1)
        if scenario or trace or stages or given or plot or others:
            raise UsageError(
                "--like says all of the scene: it takes --seed, --out and --json alone"
            )
        _like(like, out, seed, as_json=as_json)
        return
    if out is not None:
        raise UsageError("--out writes the scenario of a run: it needs --like RUN_DIR")
    check_fidelity(fidelity)
    for name in policy:
        check_policy(name)
    scenes = _scenes(scenario, trace, stages, given, range(seed, seed + seeds))
    if len(policy) == seeds == 1:
        shows = plot is not None
        result = play(scenes[seed], policy[0], seed, fidelity=fidelity, with_timeline=shows)
        if plot is not None:
            _plot(result, plot)
        print(result.to_json() if as_json else for_terminal("\n".join(_lines(result))))
        return
    if plot is not None:
        raise UsageError("--plot shows one simulation: give one policy and one seed")
    work = [
        Job(scene, name, number, fidelity=fidelity)
        for number, scene in scenes.items()
        for name in policy
    ]
    rows = sweep(work, processes=jobs, progress=not as_json)
    if as_json:
        print(json.dumps({"fidelity": fidelity, "rows": rows}))
    else:
        print(for_terminal("\n".join(_table(rows, policy))))


def _like(run_dir: Path, out: Path | None, seed: int, *, as_json: bool) -> None:
    from swarmrt.lab.likeness.compare import compare

    found = compare(run_dir, seed)
    if out is not None:
        found.likeness.write(out)
    if as_json:
        print(json.dumps(found.to_plain() | {"seed": seed}))
        return
    print(for_terminal("\n".join(found.lines())))
    if out is not None:
        print(
            for_terminal(f"play it again: swarmrt simulate {out} --fidelity flow --policy static")
        )


def _scenes(
    scenario: Path | None,
    trace: Path | None,
    stages: int | None,
    shape: dict[str, float],
    seeds: range,
) -> dict[int, Scene]:
    """Return the scene of each seed. Raises UsageError."""
    from swarmrt.sim.fluid.recorded import scene_of
    from swarmrt.sim.fluid.scenario import read_scenario
    from swarmrt.sim.fluid.trace import read_trace

    if (scenario is None) == (trace is None):
        raise UsageError("give a SCENARIO.toml, or --trace FILE with --stages N: one of the two")
    if scenario is not None:
        if shape or stages is not None:
            raise UsageError(f"{scenario} says all of the scene: drop the options of --trace")
        read = read_scenario(scenario)
        return {seed: read.scene(scenario.parent, seed) for seed in seeds}
    if stages is None:
        raise UsageError("--trace needs --stages N")
    assert trace is not None, "one of the two is given"
    changes = read_trace(trace)
    return {seed: scene_of(changes, stages, seed=seed, **shape) for seed in seeds}


def _plot(result: Result, path: Path) -> None:
    from swarmrt.sim.fluid.plot import plot

    plot(result, path)


def _lines(result: Result) -> list[str]:
    row = result.row()
    lines = [
        f"{printable(result.policy)}, {result.stages} stages, seed {result.seed}: "
        f"{result.peers_joined} peers joined in {result.duration_s / 3600:.1f} h "
        f"(fidelity: {row['fidelity']})",
        f"throughput      {row['throughput']:.4g} microbatches/s",
        f"of oracle b     {row['throughput_over_oracle']:.4f} (newcomers count once loaded)",
        f"of oracle a     {row['throughput_over_free_oracle']:.4f} (downloads are free)",
        f"switches        {result.switches}",
        f"downloads       {result.downloads} ({result.standby_downloads} to stand by; "
        f"{row['extra_downloads_per_peer']:.2f} a peer after its first)",
        f"lost states     {result.lost_states}",
    ]
    regret = (f"{cause} {row[f'regret_{cause}']:.2%}" for cause in result.regret)
    return [*lines, f"regret          {', '.join(regret)}"]


def _table(rows: list[dict[str, Any]], policies: list[str]) -> list[str]:
    """Return one line a policy: the means of its seeds."""
    wide = max(len(printable(policy)) for policy in policies)
    lines = [f"fidelity: {rows[0]['fidelity']}; {rows[0]['stages']} stages; means"]
    lines.append("  ".join([f"{'policy':{max(wide, 6)}}", *list(COLUMNS.values())[1:]]))
    for policy in policies:
        own = [row for row in rows if row["policy"] == policy]
        cells = [f"{printable(policy):{max(wide, 6)}}"]
        for key, title in list(COLUMNS.items())[1:]:
            mean = sum(row[key] for row in own) / len(own)
            digits = 4 if "over" in key else 2 if "extra" in key else 1
            cells.append(f"{mean:{len(title)}.{digits}f}")
        lines.append("  ".join(cells))
    return lines
