"""The packages that a machine with torch for CUDA lacks, brought along as wheels.

The machine that they are for has Python 3.12 on x86-64 Linux, and no network. Versions are those of
constraints.txt.
"""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)]
PLATFORMS += [f"manylinux{year}_x86_64" for year in ("2014", "2010", "1")]
MOST_BYTES = 40_000_000

BROUGHT = (
    "annotated-types",
    "asyncio-dgram",
    "base58",
    "blake3",
    "cffi",
    "cryptography",
    "hivemind",
    "idna",
    "mmh3",
    "morphys",
    "msgspec",
    "netaddr",
    "prefetch_generator",
    "protobuf",
    "py-cid",
    "py-multibase",
    "py-multicodec",
    "py-multihash",
    "pycparser",
    "pydantic",
    "pydantic_core",
    "python-baseconv",
    "six",
    "sortedcontainers",
    "tomli-w",
    "typing_extensions",
    "typing-inspection",
    "varint",
    "zstandard",
)
# What torch, transformers and pandas bring with them, or the machine has anyway.
ON_THE_MACHINE = (
    *("torch", "triton", "numpy", "scipy", "safetensors", "msgpack", "networkx", "typer", "rich"),
    *("uvloop", "prometheus-client", "matplotlib", "packaging", "setuptools", "tqdm", "pyyaml"),
)
NOT_IMPORTED = ("configargparse", "grpcio-tools")  # hivemind's, for its own commands and build


def collect(folder: Path) -> str:
    """Download the wheels; a line that says what came. Raises SystemExit when one cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    for name, version in pinned().items():
        _download(f"{name}=={version}", folder)
    found = sorted(folder.glob("*.whl"))
    if problems := [problem for wheel in found for problem in problems_of(wheel)]:
        raise SystemExit("check_gpu: " + "; ".join(problems))
    size_bytes = sum(wheel.stat().st_size for wheel in found)
    if size_bytes > MOST_BYTES:
        raise SystemExit(f"check_gpu: {size_bytes / 1e6:.1f} MB of wheels is more than can travel")
    return f"{len(found)} wheels for Python {PYTHON} in {folder}, {size_bytes / 1e6:.1f} MB"


def pinned() -> dict[str, str]:
    """Return what is brought, and in which version."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = {plain(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    if unknown := [name for name in BROUGHT if plain(name) not in versions]:
        raise SystemExit(f"check_gpu: constraints.txt has no version of {', '.join(unknown)}")
    return {name: versions[plain(name)] for name in BROUGHT}


def required() -> list[str]:
    """Return the names of the packages that setup.cfg always requires on Linux."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = parser["options"]["install_requires"].splitlines()
    return [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in lines if line]


def plain(name: str) -> str:
    """A package's name in the one spelling that names are compared in (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _download(requirement: str, folder: Path) -> None:
    """A wheel for the machine; built here where there are sources only, if it fits everywhere."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    ready = [*pip, "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    ready += ["--python-version", PYTHON, "--implementation", "cp"]
    ready += [word for platform in PLATFORMS for word in ("--platform", platform)]
    built = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder)]
    problem = ""
    for command in (ready, built):
        done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        problem = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
    raise SystemExit(f"check_gpu: no wheel of {requirement} can be had: {problem}")


def problems_of(wheel: Path) -> list[str]:
    """Return why a wheel would not do on the machine, by its name and what it requires."""
    problems = []
    *_, interpreter, abi, platform = wheel.stem.split("-")
    fits = {"py3", "cp312"} & set(interpreter.split(".")) or abi == "abi3"
    if not fits or not (platform == "any" or "x86_64" in platform):
        problems.append(f"{wheel.name} is not for Python {PYTHON} on x86-64")
    known = {plain(name) for name in (*BROUGHT, *ON_THE_MACHINE, *NOT_IMPORTED)}
    for name in _requirements(wheel):
        if plain(name) not in known:
            problems.append(f"{wheel.name} requires {name}, which is neither brought nor there")
    return problems


def _requirements(wheel: Path) -> list[str]:
    """Names of what a wheel always requires on Linux."""
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        lines = archive.read(metadata).decode(errors="replace").splitlines()
    wanted = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]
    elsewhere = re.compile(r"extra\s*==|(platform_system|sys_platform)\s*==\s*.(?![Ll]inux)")
    older = re.compile(r"python_(full_)?version\s*<=?\s*.3\.(\d|1[0-2])\b")
    always = [w for w in wanted if not elsewhere.search(w) and not older.search(w)]
    return [re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text in always]


def install(folder: Path, target: Path) -> str | None:
    """Unpack the wheels into a folder for PYTHONPATH; why that failed, or None."""
    found = sorted(map(str, folder.glob("*.whl")))
    if not found:
        return f"there are no wheels in {folder}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    pip += ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(target)]
    done = subprocess.run([*pip, *found], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
