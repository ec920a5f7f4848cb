"""The command `swarmrt rebalance`: what would be done now so that a live run goes faster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from swarmrt.cli.options.papers import JOIN_LINE, RUN, given_line
from swarmrt.cli.options.processes import JOIN
from swarmrt.cli.options.reach import ANNOUNCE, LISTEN, PORT, UPNP, place_of
from swarmrt.cli.options.saying import JSON, say
from swarmrt.errors import AccessError, UsageError

if TYPE_CHECKING:
    from swarmrt.trust.joining_line import JoinLine


def rebalance(
    line_text: str | None = JOIN_LINE,
    run_name: str | None = RUN,
    join: list[str] = JOIN,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Say what would be done now, why, and what it gains and costs."
    ),
    listen: list[str] = LISTEN,
    port: str | None = PORT,
    announce: list[str] = ANNOUNCE,
    upnp: bool = UPNP,
    as_json: bool = JSON,
) -> None:
    """Say who would be moved in a live run, by the facts that its trainer decides from."""
    from swarmrt.cli.process.running import run
    from swarmrt.observe.rebalancing import Outlook
    from swarmrt.runtime.observing.asking import ask_for_facts

    if not dry_run:
        raise UsageError(
            "the trainer of a run moves its peers by itself, as soon as it is worth it, unless "
            "rebalancing.enabled is false: nothing is left to be told to it. With --dry-run this "
            "command says what it would do now"
        )
    line = _line(line_text, run_name, join).with_addresses(join)
    place = place_of(line.addresses, listen, port, announce, upnp)
    told = run(lambda switch: ask_for_facts(line, place))
    if told is None:
        return  # Ctrl-C
    outlook = Outlook(str(told.run), told.version, told.idle, told.standby_share, told.swarm)
    for text in outlook.lines():
        say(text, as_json)
    if as_json:
        print(json.dumps(outlook.to_json()), flush=True)


def _line(text: str | None, run_name: str | None, join: list[str]) -> JoinLine:
    """Return the join line that is given or was kept, or one without an invitation of the run's id
    and address. Raises AccessError."""
    from swarmrt.runtime.access.kept_runs import kept_line
    from swarmrt.trust.joining_line import JoinLine, parse_run_id

    line = given_line(text)
    if line is not None:
        return line
    try:
        return kept_line(run_name)
    except AccessError:
        if not join or run_name is None or "@" not in run_name:
            raise
    return JoinLine(parse_run_id(run_name), ())
