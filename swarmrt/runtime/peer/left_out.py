"""Telling the owner of a peer why the run goes on without it, and what it waits for."""

from __future__ import annotations

from swarmrt.scheduler.instructions import ReportLeftOut, ReportWaitsFor


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


def waits_for_text(report: ReportWaitsFor) -> str:
    """Return one sentence of what this peer waits for, and for how long it has."""
    what = {
        "trainer": "for the trainer, who is gone; the state is kept",
        "hail": "for a first word of the trainer",
        "admission": "to be admitted by the trainer, at a commit, or when others have come",
        "state": "for the state of its stage, which is on its way",
        "next try": "until it asks for the state of its stage again, which it could not load",
    }[report.what]
    return f"this peer has been waiting for {report.seconds:.0f} s {what}"
