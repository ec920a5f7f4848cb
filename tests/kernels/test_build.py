"""Building the native library, and doing without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, swarmrt

pytest.importorskip("setuptools", reason="setuptools is not installed")


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_without_a_compiler_everything_is_built_but_the_library(
    compiler: str, tmp_path: Path
) -> None:
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-base", tmp_path],
        cwd=ROOT,
        env=os.environ | {"CC": compiler},
        capture_output=True,
        check=True,
    )
    (built,) = tmp_path.glob("lib*")
    assert (built / "swarmrt" / "kernels" / "codecs.py").exists()
    assert not list(built.rglob("_native*"))
    done = swarmrt(
        *("bench", "codec", "--mebibytes", 1, "--rounds", 1),
        cwd=tmp_path,
        env={"PYTHONPATH": str(built)},
        fresh=True,
    )
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("codecs: eager torch: the native library was not built")
    assert "install a C compiler" in first
