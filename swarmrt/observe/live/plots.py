"""The run's loss as a picture."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from swarmrt.observe.live.progress import Progress

log = logging.getLogger("swarmrt.plots")


def plot_loss(progress: Progress, path: Path) -> None:
    """Training and held-out loss over steps, beside the unigram baseline.

    Without matplotlib, or on a full disk, there is no picture: the run has come to its end all the
    same.
    """
    if importlib.util.find_spec("matplotlib") is None:
        log.warning("there is no %s: matplotlib is not installed", path.name)
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, used once
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*zip(*progress.losses, strict=True), color="#8fb8de", label="training", lw=1.2)
    if progress.evaluations:
        evaluations = list(zip(*progress.evaluations, strict=True))
        axes.plot(*evaluations, color="#1f4e79", marker="o", ms=4, label="held-out")
    if progress.unigram_loss is not None:
        axes.axhline(progress.unigram_loss, color="#c0504d", ls="--", lw=1, label="unigram")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a token)")
    axes.set_title(f"{progress.config.run.name}: {progress.config.num_stages} stages")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    try:
        figure.savefig(path)
    except OSError as error:
        log.warning("%s: cannot be written: %s", path, error.strerror)
        path.unlink(missing_ok=True)
