"""The prediction that a simulation makes of a run's likeness, beside what the run has measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarmrt.lab.likeness.cpu import Cpu, cpu_of
from swarmrt.lab.likeness.measured import WARM_UP_STEPS, Measured, measure
from swarmrt.lab.likeness.scenario import Likeness, likeness_of
from swarmrt.observe.log import read_entries
from swarmrt.sim.fidelity import simulate
from swarmrt.sim.fluid.scene import Scene

FIDELITY = "flow"
POLICY = "static"  # whoever comes serves the stage that it has served; nobody moves
NOT_CALIBRATED = "CPU-bound: not calibrated"
LITTLE = 0.02  # of the throughput: what is lost of less is nobody's fault


@dataclass(frozen=True)
class Comparison:
    """A run beside its likeness. Throughputs are microbatches a second, after the warm-up."""

    run: Measured
    likeness: Likeness
    predicted: float
    cpu: Cpu

    @property
    def measured(self) -> float:
        return self.run.throughput

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured

    @property
    def best(self) -> tuple[int, float]:
        """Return the poorest stage in the time that was measured, and what it could compute."""
        rates = [0.0] * self.run.config.num_stages
        begins_at, ends_at = self.run.begins_at, self.run.ends_at
        for stage, seat_s, present_s in self.likeness.served(begins_at, ends_at):
            rates[stage] += present_s / (ends_at - begins_at) / seat_s
        stage = min(range(len(rates)), key=rates.__getitem__)
        return stage, rates[stage]

    @property
    def limit(self) -> str:
        """Return what limits the predicted throughput, for people."""
        stage, best = self.best
        used = self.predicted / best if best else 0.0
        what = f"stage {stage}, which could compute {best:.4g} microbatches/s: {used:.1%} of it"
        if self.run.config.optimizer.staleness == 0 and used < 1 - LITTLE:
            what += "; the rest goes into filling and draining, and reduces, in each step"
        return what

    @property
    def note(self) -> str:
        return NOT_CALIBRATED if self.cpu.is_limit else ""

    def to_plain(self) -> dict[str, Any]:
        """Return one object, for a program."""
        stage, best = self.best
        microbatches = self.run.config.batch.microbatches
        return {
            "fidelity": FIDELITY,
            "steps": self.run.steps,
            "seconds": self.run.ends_at - self.run.begins_at,
            "predicted_microbatches_per_s": self.predicted,
            "measured_microbatches_per_s": self.measured,
            "predicted_over_measured": self.ratio,
            "predicted_step_s": microbatches / self.predicted if self.predicted else None,
            "measured_step_s": microbatches / self.measured,
            "limit": {"stage": stage, "microbatches_per_s": best},
            "peers": len(self.run.service_s),
            "way_s": self.run.way_s,
            "reduce_s": self.run.reduce_s,
            "noise": self.run.noise,
            "cpu": {
                "busy_share": self.cpu.busy_share,
                "waited_share": self.cpu.waited_share,
                "is_limit": self.cpu.is_limit,
            },
            "note": self.note,
        }

    def lines(self) -> list[str]:
        """Return lines for people."""
        microbatches, run = self.run.config.batch.microbatches, self.run
        step_s = [microbatches / rate if rate else 0.0 for rate in (self.predicted, self.measured)]
        lines = [
            f"{run.steps} steps of {microbatches} microbatches, {len(run.service_s)} peers, "
            f"{run.ends_at - run.begins_at:.1f} s after {WARM_UP_STEPS} steps of warm-up "
            f"(fidelity: {FIDELITY})",
            f"predicted   {self.predicted:8.4g} microbatches/s {step_s[0]:8.4g} s a step",
            f"measured    {self.measured:8.4g} microbatches/s {step_s[1]:8.4g} s a step",
            f"ratio       {self.ratio:8.3f}",
            f"limit       {self.limit}",
            f"links       {1e3 * run.way_s:.3g} ms for a frame, {run.reduce_s:.3g} s to reduce",
            f"CPU         {self.cpu}",
        ]
        return [*lines, self.note] if self.note else lines


def compare(run_dir: Path, seed: int = 0) -> Comparison:
    """Simulate a run's likeness. Raises UsageError for what is no whole run."""
    run = measure(run_dir)
    likeness = likeness_of(run)
    until = [_landed(likeness.scene(at, seed), seed) for at in (run.begins_at, run.ends_at)]
    predicted = (until[1] - until[0]) / (run.ends_at - run.begins_at)
    days = _days(run_dir)
    first, last = (days.get(run.commits[index][0], 0.0) for index in (WARM_UP_STEPS - 1, -1))
    return Comparison(run, likeness, predicted, cpu_of(run_dir, first, last, run.computed_s))


def _landed(scene: Scene, seed: int) -> float:
    return simulate(scene, POLICY, seed, fidelity=FIDELITY).microbatches


def _days(run_dir: Path) -> dict[int, float]:
    """Return the time of day of each commit."""
    metrics = run_dir / "metrics.jsonl"
    entries = read_entries(metrics) if metrics.exists() else ()
    return {one["version"]: one["time"] for one in entries if "digests" in one and "time" in one}
