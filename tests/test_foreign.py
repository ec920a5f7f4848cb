"""What other processes say is shown as what it is, wherever it is shown."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from swarmrt.cli.process.running import PlainFormatter
from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import ConfigError
from swarmrt.foreign import MAX_CHARACTERS, for_terminal, printable
from swarmrt.ids import PeerId
from swarmrt.messages import ALL_MESSAGES, Finish, Message, Reasoned, Refused, Released
from swarmrt.observe.live.plain import PlainView
from swarmrt.observe.live.progress import Progress
from swarmrt.observe.live.table import LiveView
from swarmrt.scheduler.instructions import (
    Report,
    ReportCheckpointFailed,
    ReportPause,
    ReportPeer,
    ReportRecovery,
    ReportRollback,
    ReportUnable,
)
from swarmrt.wire.headers import REASON_CHARACTERS, HeaderFormat
from tests.processes import swarmrt

HOSTILE = "\x1b[2J\x9b31m\rswarmrt: done\nstep 9/9 \u202ereversed [/b] [red] :skull: \ud800"
HOSTILE += "x" * 9999


@given(st.text(), st.integers(1, 300))
def test_printable_is_one_short_line_and_stays_as_it_is(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable() and len(shown) <= limit
    assert printable(shown, limit) == shown
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=MAX_CHARACTERS))
def test_plain_words_are_not_touched(text: str) -> None:
    assert printable(text) == for_terminal(text) == text


@given(st.text())
def test_a_terminal_gets_lines_and_tabs_alone(text: str) -> None:
    shown = for_terminal(text)
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert for_terminal(shown) == shown


def test_every_message_with_a_reason_cleans_it() -> None:
    kinds = [kind for kind in ALL_MESSAGES if "reason" in kind.__struct_fields__]
    assert kinds and all(issubclass(kind, Reasoned) for kind in kinds)


def test_reasons_are_clean_when_they_are_made_and_when_they_arrive() -> None:
    raw: dict[type[Message], tuple[object, ...]] = {
        Released: (1, 1, (1, 2, False), HOSTILE, "forward", False),
        Refused: (1, 1, 1, HOSTILE, "peer", "", ""),
        Finish: (HOSTILE,),
    }
    for kind, values in raw.items():
        words = HOSTILE.encode(errors="replace").decode()[:REASON_CHARACTERS]
        plain = [words if v == HOSTILE else v for v in values]
        arrived, _ = HeaderFormat(kind).decode(msgspec.msgpack.encode((plain, ())))
        assert isinstance(arrived, Released | Refused | Finish)
        assert is_clean(arrived.reason), arrived
    assert is_clean(Finish(HOSTILE).reason)
    assert Finish("the run is done").reason == "the run is done"


def is_clean(text: str) -> bool:
    return text.isprintable() and len(text) <= MAX_CHARACTERS


REPORTS: list[Report] = [
    ReportRecovery(1, "fenced", 2, HOSTILE),
    ReportPause(1, HOSTILE),
    ReportRollback(1, 2, HOSTILE),
    ReportCheckpointFailed(1, HOSTILE),
    ReportUnable(1, PeerId("Qm"), HOSTILE),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_views_obey_nobody(report: Report, tmp_path: Path) -> None:
    progress = Progress(RunConfig(), tmp_path)
    said: list[str] = []
    PlainView(progress, said.append).update(report)
    assert len(said) == 1 and said[0].isprintable()
    screen = io.StringIO()
    LiveView(progress, Console(file=screen, width=1000, force_terminal=False)).update(report)
    assert screen.getvalue().rstrip("\n").isprintable()
    assert "[/b] [red] :skull:" in screen.getvalue()
    progress.close()


def test_the_live_table_obeys_nobody(tmp_path: Path) -> None:
    progress = Progress(RunConfig(), tmp_path)
    progress.add(ReportPeer(PeerId("\x1b[2J[red]"), 0, "ready", 3, 0, 1, 0.1))
    screen = io.StringIO()
    console = Console(file=screen, width=200, force_terminal=False)
    console.print(LiveView(progress, console).render())
    assert "[red]" in screen.getvalue() and "\x1b" not in screen.getvalue()
    progress.close()


def test_a_log_has_one_line_for_one_message() -> None:
    formatter = PlainFormatter("%(levelname)s %(name)s: %(message)s")
    record = logging.LogRecord("swarmrt", logging.WARNING, "", 0, "from %s", (HOSTILE,), None)
    assert formatter.format(record).isprintable()
    level = logging.getLevelName(logging.WARNING)  # hivemind gives it another name
    assert formatter.format(record).startswith(f"{level} swarmrt: from \\x1b[2J")


@pytest.mark.parametrize(
    "values",
    [
        {HOSTILE: {}},
        {"run": {HOSTILE: 1}},
        {"run": HOSTILE},
        {"run": {"name": HOSTILE}},
        {"model": {"kind": HOSTILE}},
        {"model": {"dtype": HOSTILE}},
        {"run": {7: 1}},
        {7: {}},
    ],
    ids=range(8),
)
def test_a_foreign_configuration_is_refused_in_one_short_line(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(values, "run 'x'")
    assert str(error.value).isprintable() and len(str(error.value)) < 500


def test_an_error_on_the_terminal_is_clean(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('["\\u001b[2J\\u009b"]\n')
    done = swarmrt("config", config)
    assert done.returncode == 2 and done.stderr.rstrip("\n").isprintable()
    assert "unknown section [\\x1b[2J\\x9b]" in done.stderr
    missing = swarmrt("config", f"{tmp_path}/\x1b[2J.toml")
    assert missing.returncode == 2 and missing.stderr.rstrip("\n").isprintable()
