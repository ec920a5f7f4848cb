"""The command `swarmrt doctor`: what works from here."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import typer

from swarmrt.cli.options.papers import given_line
from swarmrt.cli.options.processes import JOIN
from swarmrt.cli.options.reach import ANNOUNCE, LISTEN, PORT, UPNP, place_of_doctor
from swarmrt.foreign import printable

WIDTH = 34  # of what was looked at
MAX_SAID = 1000  # characters of what was found: some of it is in others' words


def doctor(
    line_text: str | None = typer.Argument(
        None,
        metavar="[JOIN_LINE]",
        help="Of a run whose trainer and peers are to be measured; or set SWARMRT_JOIN.",
        show_default=False,
    ),
    join: list[str] = JOIN,
    listen: list[str] = LISTEN,
    port: str | None = PORT,
    announce: list[str] = ANNOUNCE,
    upnp: bool = UPNP,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, last."),
) -> None:
    """Tell what works from here, and why not where it does not. Fails if something cannot be
    reached."""
    from swarmrt.cli.process.running import new_loop, run
    from swarmrt.lab.doctor.doctor import examine_carriers, examine_machine, examine_swarm
    from swarmrt.lab.doctor.findings import Finding

    line = given_line(line_text)
    findings: list[Finding] = []

    def is_optional(finding: Finding) -> bool:
        return finding.what.startswith(("codecs", "dialed back"))

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            mark = "ok" if finding.works else "--" if is_optional(finding) else "no"
            says = printable(finding.says, MAX_SAID)
            print(f"{mark}  {printable(finding.what):<{WIDTH}} {says}", flush=True)

    at = [*join, *(line.addresses if line is not None else ())]
    place = place_of_doctor(at, listen, port, announce, upnp)

    async def swarm() -> None:
        async for finding in examine_swarm(join, place, line):
            tell(finding)

    for finding in examine_machine():
        tell(finding)
    for finding in examine_carriers(new_loop):
        tell(finding)
    if join or line is not None:
        run(lambda switch: swarm())
    failing = [f for f in findings if not f.works and not is_optional(f)]
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}))
    elif failing:
        print(f"\nnot everything works from here: {', '.join(f.what for f in failing)}")
    else:
        print("\nall that was tried works from here")
    if failing:
        sys.exit(1)
