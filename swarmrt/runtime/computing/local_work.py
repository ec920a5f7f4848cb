"""The report of a stage on steps that its replica makes by itself, as it goes to the trainer."""

from __future__ import annotations

import math

from swarmrt.model.weights import LocalReport
from swarmrt.scheduler.local_work import MOST_DRIFT, NO_LOCAL_WORK, LocalWork


def local_work(report: LocalReport) -> LocalWork:
    """Return what can be told of it: weights that are not finite are as far off as can be."""
    if report == LocalReport():
        return NO_LOCAL_WORK
    drift = report.drift if math.isfinite(report.drift) else MOST_DRIFT
    return LocalWork(report.steps, report.late_fraction, min(drift, MOST_DRIFT))
