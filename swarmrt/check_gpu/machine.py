"""The machine: the card, versions, and what of ours can be used."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys

import torch

from swarmrt.check_gpu.job import Job
from swarmrt.check_gpu.wheels import ROOT, required
from swarmrt.kernels import dispatch

BUILD_S = 40.0
SMI_S = 10.0
ALSO_IMPORTED = ("scipy",)  # by hivemind


def check(job: Job) -> None:
    """Write down what is here, and build the kernels in C if that is still to do and possible."""
    build = _build_native()
    cuda = torch.cuda.is_available()
    card = torch.cuda.get_device_properties(0) if cuda else None
    described = dispatch.describe()
    for name, value in {
        "card": card.name if card else "",
        "card_bytes": card.total_memory if card else 0,
        "capability": f"{card.major}.{card.minor}" if card else "",
        "multiprocessors": card.multi_processor_count if card else 0,
        "driver": smi("driver_version") if cuda else "",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "triton": _version("triton"),
        "hivemind": _version("hivemind"),
        "cores": os.cpu_count() or 1,
        "kernels_cpu": described["cpu"],
        "kernels_cuda": described["cuda"],
        "native_build": build,
    }.items():
        job.book.figure(name, value)
    imported = [name.replace("-", "_") for name in (*required(), *ALSO_IMPORTED)]
    missing = [name for name in imported if importlib.util.find_spec(name) is None]
    job.book.figure("missing", missing)
    job.book.expect(
        not missing, f"missing here: {', '.join(missing)}; --wheels brings what torch does not"
    )
    if cuda:
        job.book.expect(described["cuda"] == "Triton", f"kernels on CUDA: {described['cuda']}")
    on = card.name if card else "no GPU"
    job.book.say(f"{on}, torch {torch.__version__}, Python {platform.python_version()}")


def smi(query: str) -> str:
    """Return what nvidia-smi says of the first card; empty where there is none. It only reads."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_S, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _build_native() -> str:
    """Build the kernels in C into the checkout, unless they are there. What came of it."""
    there = [path for suffix in _suffixes() for path in [ROOT / "kernels" / f"_native{suffix}"]]
    if any(path.exists() for path in there):
        return "was there"
    if shutil.which("cc") is None:
        return "no C compiler"
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "the compiler took too long"
    if done.returncode == 0 and any(path.exists() for path in there):
        return "built"
    print(done.stdout, done.stderr)
    return "could not be built"


def _suffixes() -> list[str]:
    from importlib.machinery import EXTENSION_SUFFIXES

    return EXTENSION_SUFFIXES
