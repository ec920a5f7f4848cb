"""Telling the owner of a peer why the run goes on without it."""

from __future__ import annotations

from swarmrt.scheduler.instructions import ReportLeftOut


def left_out_text(report: ReportLeftOut) -> str:
    """Return one sentence of what takes too long, and one of when it is tried again."""
    rate = f"{report.bytes_per_s * 8 / 1e6:.1f} Mb/s"
    what = {
        "link": f"a gradient of {report.gradient_bytes / 1e6:.0f} MB over its link of {rate}",
        "state": "the state that it loads",
        "round": f"a reduce with it, over its link of {rate},",
        "step": "a step with it",
    }[report.what]
    times = f"takes {report.takes_s:.1f} s, and a step without it {report.step_s:.1f} s"
    again = f"It is tried again in {report.rest_s:.0f} s."
    return f"the run goes on without this peer: {what} {times}. {again}"
