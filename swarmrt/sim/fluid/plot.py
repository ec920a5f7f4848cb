"""A simulation as a picture: throughput beside the oracle's, replicas by stage, what peers did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from swarmrt.errors import UsageError
from swarmrt.sim.fluid.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOUR = 3600.0
COLOURS = {
    "switch": "#1f4e79",
    "download": "#c0504d",
    "standby": "#e0b050",
    "leave": "#999999",
    "lost": "#000000",
}


def plot(result: Result, path: Path) -> None:
    """Write a picture of a result that has a timeline. Its ending says the format.

    Raises UsageError if it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, used once
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, middle, below = figure.subplots(3, 1, sharex=True)
    _throughput(above, result)
    _replicas(middle, result)
    _acts(below, result)
    below.set_xlabel("hours")
    row = result.row()
    figure.suptitle(
        f"{result.policy}, {result.stages} stages, seed {result.seed} ({result.fidelity}): "
        f"{row['throughput_over_oracle']:.3f} of the oracle"
    )
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: the plot cannot be written: {error}") from None


def _throughput(axes: Axes, result: Result) -> None:
    hours = [sample.at_s / HOUR for sample in result.samples]
    axes.step(
        hours,
        [s.oracle for s in result.samples],
        where="post",
        color="#cccccc",
        lw=4,
        label="oracle b",
    )
    axes.step(
        hours, [s.rate for s in result.samples], where="post", color="#1f4e79", label="throughput"
    )
    if result.landed:
        at, landed = zip(*result.landed, strict=True)
        axes.plot([when / HOUR for when in at], landed, color="#c0504d", lw=1, label="landed")
    axes.set_ylabel("microbatches/s")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _replicas(axes: Axes, result: Result) -> None:
    hours = [sample.at_s / HOUR for sample in result.samples]
    if hours:
        by_stage = list(zip(*(s.replicas for s in result.samples), strict=True))
        axes.stackplot(hours, *by_stage, step="post", lw=0)
    axes.set_ylabel("replicas, by stage")


def _acts(axes: Axes, result: Result) -> None:
    for row, (what, colour) in enumerate(COLOURS.items()):
        above = 0.12 * (row - len(COLOURS) // 2)
        acts = [act for act in result.acts if act.what == what and act.stage is not None]
        axes.scatter(
            [act.at_s / HOUR for act in acts],
            [act.stage + above for act in acts if act.stage is not None],
            s=8,
            color=colour,
            label=what,
        )
    axes.set_ylabel("stage")
    axes.set_yticks(range(result.stages) if result.stages <= 32 else [0, result.stages - 1])
    axes.legend(frameon=False, ncols=len(COLOURS), loc="lower center", bbox_to_anchor=(0.5, 1.0))
