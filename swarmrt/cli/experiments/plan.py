"""The command `swarmrt plan`: who would best serve which stage of a run, and what a step takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from swarmrt.cli.options.runs import SET
from swarmrt.cli.options.saying import JSON, say
from swarmrt.cli.process.signals import fail_on_signals
from swarmrt.config_toml import load_config
from swarmrt.errors import UsageError

if TYPE_CHECKING:
    from swarmrt.lab.placing.job_of import Cut
    from swarmrt.scheduler.placement.facts import Network
    from swarmrt.scheduler.placement.losses import Loss
    from swarmrt.scheduler.placement.search import Plan

WORTH = 1.03  # times as long, that a step must take at random for a placement to be worth it


@fail_on_signals("there is no plan; begin again")
def plan(
    path: Path = typer.Argument(..., metavar="RUN.toml"),
    peers: Path = typer.Option(
        ..., metavar="PEERS.toml", help="The peers that there are, and the links between them."
    ),
    overrides: list[str] = SET,
    replicas_all: bool = typer.Option(
        False, "--all", help="Leave nobody out, even who costs more than it brings."
    ),
    seed: int = typer.Option(0, min=0, help="Of the search."),
    as_json: bool = JSON,
) -> None:
    """Cut the model, and place its stages on known peers so that a step is the shortest."""
    from swarmrt.lab.placing.job_of import job_of
    from swarmrt.lab.placing.peers_file import read_peers
    from swarmrt.model.builders import look_here
    from swarmrt.runtime.computing.free_memory import describe
    from swarmrt.scheduler.placement.bound import bound
    from swarmrt.scheduler.placement.losses import single_losses, survivable
    from swarmrt.scheduler.placement.search import CannotPlace, plan

    network = read_peers(peers)
    config = load_config(path, overrides)
    look_here(config)
    cut = job_of(config)
    try:
        found = plan(cut.job, network, seed=seed, may_leave_out=not replicas_all)
    except CannotPlace as error:
        raise UsageError(str(error)) from None
    flow = bound(cut.job, network, found.placement)
    losses = single_losses(cut.job, network, found.placement)
    for line in _lines(cut, network, found):
        say(line, as_json)
    say(f"bound: {flow.microbatches_per_s:,.1f} microbatches a second, by {flow.by}", as_json)
    for line in _of_losses(network, losses, survivable(found.placement)):
        say(line, as_json)
    peaks = _peaks(cut, found.time.total_s)
    said = ", ".join(describe(peak) for peak in peaks)
    say(f"a peer's process takes at its peak, where the CPU computes: {said}, by stage", as_json)
    if as_json:
        plain = _object(cut, network, found, losses)
        for stage, peak in zip(plain["stages"], peaks, strict=True):
            stage["peak_bytes"] = peak
        print(json.dumps(plain | {"bound": flow._asdict()}))


def _peaks(cut: Cut, step_s: float) -> list[int]:
    """Return the predicted peak memory of a peer of each stage."""
    from swarmrt.lab.placing.peak_memory import peak_bytes, process_bytes

    process = process_bytes()
    return [peak_bytes(needed, cut.config, step_s, process) for needed in cut.needed]


def _lines(cut: Cut, network: Network, found: Plan) -> list[str]:
    from swarmrt.runtime.computing.free_memory import describe

    layers = cut.config.stages.layers
    assert layers is not None
    lines = []
    for stage, (cost, peers) in enumerate(zip(cut.job.stages, found.placement, strict=True)):
        what = f"{layers[stage]} layer{'s' if layers[stage] > 1 else ''}"
        who = ", ".join(network.names[peer] for peer in peers)
        takes = f"{1e3 * cost.compute_s:,.1f} ms a microbatch, {describe(cost.memory_bytes)}"
        lines.append(f"stage {stage}: {what}, {takes}: {who}")
    time = found.time
    how = "the longer of computing, and" if cut.job.overlaps else "computing"
    lines.append(
        f"a step takes {time.total_s:,.2f} s: {how} {time.compute_s:,.2f} (stage "
        f"{time.slowest_stage} is the slowest), fill and drain {time.fill_s:,.2f}, reduce "
        f"{time.reduce_s:,.2f} (of stage {time.slowest_reduce})"
    )
    if found.gain >= WORTH:
        lines.append(f"with peers placed at random it takes {found.gain:,.2f} times as long")
    else:
        lines.append("placement gains nothing here: at random a step takes as long")
    if found.left_out:
        out = ", ".join(network.names[peer] for peer in found.left_out)
        lines.append(f"left out, as they cost more than they bring: {out}")
    return lines


def _of_losses(network: Network, losses: list[Loss], survivable: int) -> list[str]:
    number = f"{survivable} replica{'s' if survivable != 1 else ''}"
    lines = [f"any stage may lose {number} and still be served"]
    worst = losses[0]
    name = network.names[worst.peer]
    text = f"the loss of {name} (stage {worst.stage}) hurts most: {worst.share:.2f} of the rate"
    if worst.move is None:
        return [*lines, f"{text} is left, and no move of another peer would help"]
    peer, stage = worst.move
    moved = f"{network.names[peer]} moves to stage {stage}"
    return [*lines, f"{text} is left, once {moved}"]


def _object(cut: Cut, network: Network, found: Plan, losses: list[Loss]) -> dict[str, Any]:
    names = network.names
    return {
        "layers": cut.config.stages.layers,
        "stages": [
            {
                "compute_s": cost.compute_s,
                "memory_bytes": cost.memory_bytes,
                "gradient_bytes": cost.gradient_bytes,
                "output_bytes": cost.output_bytes,
                "peers": [names[peer] for peer in peers],
            }
            for cost, peers in zip(cut.job.stages, found.placement, strict=True)
        ],
        "step": found.time._asdict(),
        "random_over_plan": found.gain,
        "left_out": [names[peer] for peer in found.left_out],
        "losses": [
            {
                "peer": names[loss.peer],
                "stage": loss.stage,
                "share": loss.share,
                "move": None if loss.move is None else [names[loss.move[0]], loss.move[1]],
            }
            for loss in losses
        ],
    }
