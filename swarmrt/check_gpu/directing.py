"""The director of checks, one after the other, each in a process of its own, within the time that
there is."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swarmrt.check_gpu import report, wheels
from swarmrt.check_gpu.findings import read
from swarmrt.check_gpu.plan import CHECKS, ON_CPU_S, Check
from swarmrt.check_gpu.processes import adopt_orphans, end_what_is_left, run_limited
from swarmrt.check_gpu.report import Result, left_out, result_of

RESERVE_S = 8.0  # for ending what runs, and the report


class Director:
    """Runs checks; what it knows of the machine comes from the first one."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._ends_at = time.monotonic() + seconds
        self._environment = _environment(folder)
        self.results: dict[str, Result] = {}

    @property
    def machine(self) -> dict[str, Any]:
        """Return what the check of that name has found out."""
        result = self.results.get("machine")
        return result.figures if result else {}

    @property
    def has_gpu(self) -> bool:
        return bool(self.machine.get("card"))

    def use_wheels(self, wheels_folder: Path) -> str | None:
        """Install them for the checks; why that failed, or None."""
        target = self._folder / "site"
        problem = wheels.install(wheels_folder, target)
        if problem is None:
            self._environment["PYTHONPATH"] += f"{os.pathsep}{target}"
        return problem

    def run(self, check: Check) -> Result:
        """Run it, if there is time for it and a GPU where it needs one."""
        left_s = self._ends_at - time.monotonic() - RESERVE_S
        if check.needs_gpu and not self.has_gpu:
            result = left_out("it needs a GPU")
        elif left_s < check.least_s:
            result = left_out(f"{max(0.0, left_s):.0f} s are left, it needs {check.least_s:.0f}")
        else:
            most_s = check.most_s if self.has_gpu or not self.results else ON_CPU_S
            result = self._run(check, min(most_s, left_s))
        self.results[check.name] = result
        return result

    def _run(self, check: Check, limit_s: float) -> Result:
        findings, output = (self._folder / f"{check.name}.{kind}" for kind in ("json", "log"))
        folder = self._folder / check.name
        folder.mkdir()
        device = "cuda" if self.has_gpu else "cpu"
        command = [sys.executable, "-m", "swarmrt.check_gpu.check", check.name, device]
        command += [str(folder), str(findings), str(limit_s)]
        # What is computed without a GPU is small, and the machine may have other things to do.
        threads = {} if self.has_gpu else {"OMP_NUM_THREADS": "1"}
        started = time.monotonic()
        exit_code = run_limited(command, self._environment | threads, output, limit_s)
        result = result_of(read(findings), exit_code, time.monotonic() - started, output)
        of_parts = report.add_outputs_of_parts(folder, output)
        if result.status == "FAILED":
            result.last_lines += of_parts
        shutil.rmtree(folder, ignore_errors=True)
        return result


def _environment(folder: Path) -> dict[str, str]:
    """Return our environment without settings of swarmrt, with the checkout's packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARMRT_")}
    return kept | {
        "PYTHONPATH": str(wheels.ROOT),
        "PYTHONUNBUFFERED": "1",
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TMPDIR": str(folder),
    }


def direct(
    wheels_folder: Path | None, seconds: float, out: Path | None, names: Sequence[str]
) -> int:
    """Run the checks of these names, or all; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    adopt_orphans()
    folder = Path(tempfile.mkdtemp(prefix="check-gpu-"))
    director = Director(folder, seconds)
    started_at = time.time()
    chosen = tuple(check for check in CHECKS if check.name == "machine" or check.name in names)
    chosen = chosen if names else CHECKS
    try:
        if wheels_folder is not None and (problem := director.use_wheels(wheels_folder)):
            print(f"check_gpu: the wheels cannot be installed: {problem}", flush=True)
        for check in chosen:
            print(director.run(check).line(check.name), flush=True)
            if check.name == "machine" and not director.has_gpu:
                print("check_gpu: no GPU is here: only what a CPU can do is checked", flush=True)
        text = report.as_json(director.results, _about(started_at))
        if out is not None:
            report.keep(out, text, chosen, folder)
        print(text, flush=True)
    finally:
        end_what_is_left()
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if report.has_passed(director.results) else 1


def _about(started_at: float) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started_at)),
        "command": f"scripts/check_gpu {shlex.join(sys.argv[1:])}".strip(),
        "seconds": round(time.time() - started_at, 1),
    }
