"""A check in this process: `python -m swarmrt.check_gpu.check NAME DEVICE FOLDER FINDINGS S`."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from pathlib import Path

from swarmrt.check_gpu.findings import Notebook
from swarmrt.check_gpu.job import Job


def main(name: str, device: str, folder: str, findings: str, limit_s: str) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    book = Notebook(Path(findings))
    job = Job(device, Path(folder), book, time.monotonic() + float(limit_s))
    try:
        module = importlib.import_module(f"swarmrt.check_gpu.{name}")
        module.check(job)
    except ModuleNotFoundError as error:
        book.expect(
            False, f"the package {error.name} is missing; --wheels brings what torch does not"
        )
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
