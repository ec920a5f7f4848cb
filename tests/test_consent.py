"""A volunteer's machine runs what its owner has allowed, whatever a run's record or a checkpoint
asks for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swarmrt.config import parse_config
from swarmrt.runtime.directory import RunRecord
from swarmrt.runtime.network import open_network
from tests.processes import environment

pytestmark = pytest.mark.swarm

OWN = """
import pathlib
from torch import nn
from torch.nn.functional import cross_entropy
pathlib.Path(__file__).with_name("imported").touch()

def build(width=8):
    pathlib.Path(__file__).with_name("called").touch()
    layers = [nn.Embedding(256, width), nn.Linear(width, 256)]
    return layers, lambda logits, targets: cross_entropy(logits.mT, targets, reduction="none")
"""


def serve(
    config: dict[str, Any], *arguments: object, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """`swarmrt serve` of a run whose record has this configuration, until it ends."""

    async def published() -> subprocess.CompletedProcess[str]:
        async with open_network(()) as network:
            record = RunRecord(
                run="open-door",
                trainer=network.me,
                epoch=10**9,
                config=config,
                addresses=network.daemon.addresses(),
            )
            await network.directory.publish_run(record, ttl_s=300.0)
            command = [sys.executable, "-m", "swarmrt", "serve", "--run", "open-door"]
            command += ["--stage", "0", "--join", network.daemon.addresses()[0]]
            process = await asyncio.create_subprocess_exec(
                *command,
                *map(str, arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                stdin=asyncio.subprocess.DEVNULL,
                cwd=cwd,
                env=environment(),
            )
            try:
                async with asyncio.timeout(60.0):
                    out, err = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
            return subprocess.CompletedProcess(
                command, process.returncode or 0, out.decode(), err.decode()
            )

    return asyncio.run(published())


def record(kind: str, **options: Any) -> dict[str, Any]:
    config = parse_config(
        {
            "run": {"name": "open-door"},
            "model": {"kind": kind, "options": options},
            "stages": {"layers": [1, 1]},
        },
        "test",
    )
    return config.model_dump(mode="json")


def test_a_record_cannot_name_a_command(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    done = serve(record("subprocess:getoutput", cmd=f"id > {proof}"), cwd=tmp_path)
    assert not proof.exists()
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "subprocess:getoutput" in done.stderr


def test_a_builder_needs_consent_even_where_it_could_be_imported(tmp_path: Path) -> None:
    (tmp_path / "own_model.py").write_text(OWN)
    done = serve(record("own_model:build"), cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "asks for the builder own_model:build" in done.stderr
    assert "pass --allow-model own_model:build if you trust it" in done.stderr
    assert not (tmp_path / "imported").exists()
