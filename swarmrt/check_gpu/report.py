"""The report: a line for each check as it ends, and one JSON object at the end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from swarmrt.check_gpu.findings import Findings
from swarmrt.check_gpu.plan import Check

Status = Literal["passed", "FAILED", "left out"]
LAST_LINES = 15
LAST_LINES_OF_A_PART = 5  # of a swarm


@dataclass
class Result:
    """The outcome of a check."""

    status: Status
    says: str
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    last_lines: list[str] = field(default_factory=list)  # of its output, unless it passed

    def line(self, name: str) -> str:
        """Return the outcome in a line for people."""
        says = "; ".join([*self.failures[:3], *([self.says] if self.says else [])])
        return f"{name:<9} {self.status:<8} {self.seconds:6.1f} s  {says}"


def result_of(findings: Findings, exit_code: int | None, seconds: float, output: Path) -> Result:
    """The result of a check that has run. `exit_code` is None for one that took too long."""
    failures, lines = list(findings.failures), _last_lines(output)
    last = f": {lines[-1]:.200}" if lines else ""
    if exit_code is None:
        failures.append(f"it was ended after {seconds:.0f} s{last}")
    elif exit_code != 0:
        failures.append(f"its process ended with exit code {exit_code}{last}")
    return Result(
        "FAILED" if failures else "passed",
        findings.says,
        round(seconds, 1),
        failures,
        findings.figures,
        lines if failures else [],
    )


def left_out(reason: str) -> Result:
    return Result("left out", reason)


def has_passed(results: dict[str, Result]) -> bool:
    """Return whether something has been checked, and nothing has failed."""
    statuses = {result.status for result in results.values()}
    return "passed" in statuses and "FAILED" not in statuses


def as_json(results: dict[str, Result], about: dict[str, Any]) -> str:
    """Return everything in one line."""
    checks = {name: asdict(result) for name, result in results.items()}
    return json.dumps({"passed": has_passed(results), **about, "checks": checks})


def keep(folder: Path, text: str, checks: tuple[Check, ...], outputs: Path) -> None:
    """Write the report, and what all checks have printed, into a folder: two files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "check_gpu.json").write_text(text + "\n", encoding="utf-8")
    with (folder / "check_gpu.log").open("w", encoding="utf-8") as log:
        for check in checks:
            path = outputs / f"{check.name}.log"
            if path.exists():
                log.write(f"---- {check.name}\n{_text(path)}\n")


def add_outputs_of_parts(folder: Path, output: Path) -> list[str]:
    """Write what a check's swarm has printed behind the check's own output, before its folder goes.
    Returns the last lines of each of its processes."""
    last_lines = []
    with output.open("a", encoding="utf-8") as log:
        for path in sorted(folder.rglob("output.log")):
            if lines := _text(path).strip().splitlines():
                log.write(f"-- {path.parent.name}\n" + "\n".join(lines) + "\n")
                last = lines[-LAST_LINES_OF_A_PART:]
                last_lines += [f"{path.parent.name}: {line:.300}" for line in last]
    return last_lines


def _last_lines(output: Path) -> list[str]:
    return _text(output).strip().splitlines()[-LAST_LINES:]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
