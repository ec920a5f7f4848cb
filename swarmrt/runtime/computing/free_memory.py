"""The memory that a device has to give, and the check that a stage fits into it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from swarmrt.errors import ModelError, UsageError
from swarmrt.model.sizing import Footprint

SHARE = 0.8  # of what is free: the rest is for what comes and goes while it is computed
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
CGROUPS = Path("/sys/fs/cgroup")


def parse_size(text: str) -> float:
    """Bytes of `8GB`, `500MB` or `1.5GiB`; infinite for `none`. Raises UsageError."""
    if text.lower() == "none":
        return math.inf
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([A-Za-z]{0,3})", text)
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not float(found[1]):
        raise UsageError(f"--memory {text!r}: write a size like 8GB or 500MB, or none")
    return float(found[1]) * unit


def check_fits(
    needed: Footprint,
    device: str,
    max_bytes: float | None,
    stage: int,
    beside: Sequence[Footprint] = (),
) -> float:
    """Refuse a stage that needs more of the device than `max_bytes`, by default a share of what is
    free there, or more of the host's memory than a share of that; with the stages `beside` it.
    Return how much of the device is left.

    Raises ModelError, which has both figures.
    """
    if torch.device(device).type == "cuda":
        _check(needed, _host_bytes, "cpu", None, stage, beside)
        return _check(needed, _device_bytes, device, max_bytes, stage, beside)
    return _check(needed, _one_memory_bytes, device, max_bytes, stage, beside)


def _device_bytes(needed: Footprint) -> int:
    return needed.device_bytes


def _host_bytes(needed: Footprint) -> int:
    return needed.host_bytes


def _one_memory_bytes(needed: Footprint) -> int:
    return needed.device_bytes + needed.host_bytes


def _check(
    needed: Footprint,
    bytes_of: Callable[[Footprint], int],
    device: str,
    max_bytes: float | None,
    stage: int,
    beside: Sequence[Footprint],
) -> float:
    needed_bytes, beside_bytes = bytes_of(needed), sum(map(bytes_of, beside))
    allowed, what = max_bytes, "--memory allows"
    if allowed is None:
        free = free_bytes(device)
        allowed = math.inf if free is None else SHARE * free
        what = f"{SHARE:.0%} of what is free is"
    if needed_bytes + beside_bytes > allowed:
        others = f", beside {describe(beside_bytes)} for other stages" if beside else ""
        raise ModelError(
            f"stage {stage} needs {describe(needed_bytes)} on {device} ({needed}){others}, "
            f"but {what} "
            f"{describe(allowed)}; serve a smaller stage, use a larger device, or pass "
            "--memory SIZE if you know better"
        )
    return allowed - needed_bytes - beside_bytes


def free_bytes(device: str) -> int | None:
    """Return the free bytes of a device; None where the system does not tell."""
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    own = Path("/proc/self/cgroup")
    groups = free_of_groups(own.read_text()) if own.exists() else []
    machine = _free_of_machine()
    return min(groups if machine is None else [machine, *groups], default=None)


def _free_of_machine() -> int | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def free_of_groups(own: str) -> list[int]:
    """Return the bytes that each control group around this process, a container or a unit, has left
    of its limit.

    `own` is what Linux says in /proc/self/cgroup.
    """
    inner = [line.removeprefix("0::/") for line in own.splitlines() if line.startswith("0::/")]
    groups = [group for path in inner for group in (CGROUPS / path, *(CGROUPS / path).parents)]
    found = (_free_of_group(group) for group in groups if group.is_relative_to(CGROUPS))
    return [free for free in found if free is not None]


def _free_of_group(group: Path) -> int | None:
    """Return what a group has left. What is in use counts without the cache of files, which gives
    way."""
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))


def describe(size: float) -> str:
    """Return a size for people, like `1.5 GB`."""
    for unit in ("TB", "GB", "MB"):
        if size >= UNITS[unit]:
            return f"{size / UNITS[unit]:,.1f} {unit}"
    return f"{size / UNITS['KB']:,.0f} KB"
