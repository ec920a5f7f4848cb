"""`scripts/check_gpu` where there is no GPU: so that it is alive on the day when there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmrt.check_gpu import wheels
from swarmrt.check_gpu.copies import spans_of
from swarmrt.check_gpu.findings import Notebook, read
from swarmrt.check_gpu.plan import CHECKS
from swarmrt.check_gpu.report import add_outputs_of_parts, has_passed, left_out, result_of
from swarmrt.check_gpu.spans import length, shared, union
from tests.processes import PATIENCE_S, ROOT, environment, our_processes

SCRIPT = ROOT / "scripts" / "check_gpu"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files; its path is short, as sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="t"))
    yield folder
    shutil.rmtree(folder)


def check_gpu(
    temporary: Path, *arguments: object, python: Path | str = sys.executable
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The script, on a machine without a GPU, and its JSON."""
    env = {**environment(), "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(temporary)}
    done = subprocess.run(
        [SCRIPT, *map(str, arguments)],
        env=env | {"PYTHON": str(python)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.stdout, done.stderr
    return done, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.swarm
def test_without_a_gpu_all_that_a_cpu_can_is_checked(temporary: Path, tmp_path: Path) -> None:
    done, found = check_gpu(temporary, "--seconds", 900, "--out", tmp_path)
    assert done.returncode == 0 and found["passed"], done.stdout
    assert "no GPU is here" in done.stdout and not done.stderr
    checks = found["checks"]
    assert list(checks) == [check.name for check in CHECKS]
    for check in CHECKS:
        expected = "left out" if check.needs_gpu else "passed"
        assert checks[check.name]["status"] == expected, checks[check.name]
    assert checks["kernels"]["figures"]["comparisons"] > 500
    assert checks["swarm"]["figures"]["recovered"] >= 0
    assert checks["pipeline"]["figures"]["tokens_per_s"] > 0
    assert json.loads((tmp_path / "check_gpu.json").read_text()) == found
    assert "---- swarm" in (tmp_path / "check_gpu.log").read_text()
    assert our_processes(str(temporary)) == [] and not list(temporary.iterdir())


def test_a_check_that_fails_does_not_stop_the_others(temporary: Path, tmp_path: Path) -> None:
    """A Python that has nothing: each check says what it misses, and the JSON comes."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    (tmp_path / "none").mkdir()
    done, found = check_gpu(temporary, "--wheels", tmp_path / "none", python=python)
    assert done.returncode == 1 and not found["passed"]
    assert f"there are no wheels in {tmp_path / 'none'}" in done.stdout
    failed = [name for name, check in found["checks"].items() if check["status"] == "FAILED"]
    assert failed == [check.name for check in CHECKS if not check.needs_gpu]
    for name in failed:
        assert (
            "is missing; --wheels brings what torch does not"
            in found["checks"][name]["failures"][0]
        )


def test_what_there_is_no_time_for_is_left_out(temporary: Path) -> None:
    done, found = check_gpu(temporary, "--seconds", 3, "--only", "kernels")
    assert done.returncode == 1 and not found["passed"], "nothing was checked"
    assert {check["status"] for check in found["checks"].values()} == {"left out"}
    assert "0 s are left, it needs 20" in found["checks"]["kernels"]["says"]


def test_a_check_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """It ignores SIGTERM, and has started a process in a session of its own, as swarms do."""
    hanging = tmp_path / "hanging.py"
    hanging.write_text(
        textwrap.dedent("""
            import signal, subprocess, sys, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            code = "import time; time.sleep(1000)"
            subprocess.Popen([sys.executable, "-c", code, sys.argv[1]], start_new_session=True)
            print("hanging", flush=True)
            time.sleep(1000)
        """)
    )
    directing = tmp_path / "directing.py"
    directing.write_text(
        textwrap.dedent("""
            import os, sys
            from pathlib import Path
            from swarmrt.check_gpu.processes import adopt_orphans, descendants, run_limited
            adopt_orphans()
            command = [sys.executable, sys.argv[1], sys.argv[2]]
            print(run_limited(command, os.environ, Path(sys.argv[2]), 2.0))
            print(descendants(os.getpid()))
        """)
    )
    output = tmp_path / "output.log"
    done = subprocess.run(
        [sys.executable, directing, hanging, output],
        env={**environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout.splitlines() == ["None", "[]"], done.stdout
    assert output.read_text() == "hanging\n" and our_processes(str(output)) == []


# ---------------------------------------------------------------------- the report


def test_findings_survive_a_check_that_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "check.json"
    book = Notebook(path)
    book.figure("speed", 3)
    assert not book.expect(False, "it is slow") and book.expect(True, "it is wrong")
    book.say("so far")
    result = result_of(read(path), None, 12.3, tmp_path / "check.log")
    assert result.status == "FAILED" and result.figures == {"speed": 3}
    assert result.failures == ["it is slow", "it was ended after 12 s"]
    assert result.line("check") == (
        "check     FAILED     12.3 s  it is slow; it was ended after 12 s; so far"
    )
    assert not has_passed({"check": result}) and not has_passed({"check": left_out("no time")})


def test_a_crash_is_told_with_the_last_line(tmp_path: Path) -> None:
    output = tmp_path / "check.log"
    output.write_text("Traceback\nRuntimeError: CUDA error\n")
    result = result_of(read(tmp_path / "none.json"), 1, 0.1, output)
    assert result.failures == ["its process ended with exit code 1: RuntimeError: CUDA error"]
    assert result.last_lines == ["Traceback", "RuntimeError: CUDA error"]
    assert result_of(read(tmp_path / "none.json"), 0, 0.1, output).last_lines == []


def test_what_a_swarm_has_printed_is_kept(tmp_path: Path) -> None:
    output, folder = tmp_path / "check.log", tmp_path / "check" / "run" / "peers" / "stage-0-0"
    output.write_text("RunError: no\n")
    folder.mkdir(parents=True)
    (folder / "output.log").write_text("".join(f"line {n}\n" for n in range(10)))
    last = add_outputs_of_parts(tmp_path / "check", output)
    assert last == [f"stage-0-0: line {n}" for n in range(5, 10)]
    assert output.read_text().startswith("RunError: no\n-- stage-0-0\nline 0\n")


# ---------------------------------------------------------------------- spans


def test_spans_are_joined_and_shared() -> None:
    spans = [(4.0, 6.0), (0.0, 2.0), (1.0, 3.0), (6.0, 7.0)]
    assert union(spans) == [(0.0, 3.0), (4.0, 7.0)] and length(spans) == 6.0
    assert shared(spans, [(2.0, 5.0), (6.5, 9.0)]) == 1.0 + 1.0 + 0.5
    assert shared(spans, []) == 0.0 == length([])


def test_copies_and_kernels_are_read_from_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    entries = [
        {"cat": "kernel", "name": "gemm", "ts": 10, "dur": 5},
        {"cat": "gpu_memcpy", "name": "Memcpy DtoH (Device -> Pinned)", "ts": 12.5, "dur": 1},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "ts": 1, "dur": 2},
        {"cat": "cpu_op", "name": "aten::mm", "ts": 0, "dur": 1},
        {"ph": "M", "name": "process_name"},
    ]
    path.write_text(json.dumps({"traceEvents": entries}))
    kernels, copies = spans_of(path)
    assert kernels == [(10.0, 15.0)]
    assert copies == {"to_host": [(12.5, 13.5)], "to_device": [(1.0, 3.0)]}


# ---------------------------------------------------------------------- wheels


def wheel(folder: Path, name: str, *requires: str) -> Path:
    path = folder / name
    lines = ["Metadata-Version: 2.1", *(f"Requires-Dist: {text}" for text in requires)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing-1.dist-info/METADATA", "\n".join(lines) + "\n\nText.\n")
    return path


def test_what_is_brought_has_a_version_and_closes_upon_itself(tmp_path: Path) -> None:
    assert set(wheels.pinned()) == set(wheels.BROUGHT)
    wanted = ("msgspec>=0.19", 'tomli; python_version < "3.11"', 'pytest; extra == "test"')
    fine = wheel(tmp_path, "thing-1-py3-none-any.whl", *wanted, "NumPy", "typing_extensions>4")
    assert wheels.problems_of(fine) == []
    lacking = wheel(tmp_path, "thing-2-cp312-cp312-manylinux2014_x86_64.whl", "something>=2")
    assert (
        "requires something, which is neither brought nor there" in wheels.problems_of(lacking)[0]
    )


def test_what_is_required_is_brought_or_there() -> None:
    known = {wheels.plain(name) for name in (*wheels.BROUGHT, *wheels.ON_THE_MACHINE)}
    assert "zstandard" in wheels.required()
    assert [name for name in wheels.required() if wheels.plain(name) not in known] == []


@pytest.mark.parametrize(
    "name",
    [
        "thing-1-cp311-cp311-manylinux2014_x86_64.whl",
        "thing-1-cp312-cp312-manylinux2014_aarch64.whl",
        "thing-1-py2-none-any.whl",
    ],
)
def test_wheels_for_another_machine_are_refused(tmp_path: Path, name: str) -> None:
    assert "is not for Python 3.12 on x86-64" in wheels.problems_of(wheel(tmp_path, name))[0]


def test_no_wheels(tmp_path: Path) -> None:
    problem = wheels.install(tmp_path, tmp_path / "site")
    assert problem is not None and str(tmp_path) in problem
    assert not os.path.exists(tmp_path / "site")
