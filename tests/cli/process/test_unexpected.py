"""What is shown of an error that nobody foresaw, and what `local` shows of it."""

from __future__ import annotations

import asyncio

import pytest

from swarmrt.cli.process.unexpected import show_unexpected
from swarmrt.lab.swarm.causes import cause_of


async def fails() -> None:
    raise KeyError("MicrobatchId(step=3)\nwith\ttwo lines")


async def fails_in_a_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fails())


def test_the_cause_is_found_in_a_group_and_in_a_log_with_noise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(fails_in_a_group())
    show_unexpected(caught.value)
    said = capsys.readouterr().err
    assert "Traceback" in said and said.splitlines()[-1].startswith("swarmrt: unexpected KeyError")
    cause = cause_of(1, said + "Exception ignored in: <function Popen.__del__>\n")
    assert cause.startswith("unexpected KeyError: ") and "\n" not in cause
    assert "MicrobatchId(step=3)" in cause and "in fails (test_unexpected.py:" in cause


def test_without_such_a_line_the_last_one_is_shown() -> None:
    assert cause_of(1, "one\nKilled\n") == "Killed"
    assert cause_of(1, "") == "it said nothing"
    assert cause_of(-15, "one\n") == "it was killed by SIGTERM"
