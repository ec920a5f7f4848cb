"""What is shown of an error that nobody foresaw, and what `local` shows of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmrt.cli.local import cause_in
from swarmrt.cli.unexpected import show_unexpected


async def fails() -> None:
    raise KeyError("MicrobatchId(step=3)\nwith\ttwo lines")


async def fails_in_a_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fails())


def test_the_cause_is_found_in_a_group_and_in_a_log_with_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(fails_in_a_group())
    show_unexpected(caught.value)
    said = capsys.readouterr().err
    assert "Traceback" in said and said.splitlines()[-1].startswith("swarmrt: unexpected KeyError")
    log = tmp_path / "output.log"
    log.write_text(said + "Exception ignored in: <function Popen.__del__>\n")
    cause = cause_in(log)
    assert cause.startswith("unexpected KeyError: ") and "\n" not in cause
    assert "MicrobatchId(step=3)" in cause and "in fails (test_unexpected.py:" in cause


def test_without_such_a_line_the_last_one_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    log.write_text("one\nKilled\n")
    assert cause_in(log) == "Killed"
    log.write_text("")
    assert cause_in(log) == "it said nothing"
