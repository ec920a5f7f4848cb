"""The command `swarmrt` and its exit codes; the work is done below."""

from __future__ import annotations

import sys

import typer

from swarmrt import __version__
from swarmrt.cli.experiments import bench, chaos, doctor, failpoints, plan, simulate
from swarmrt.cli.keys import access, owner
from swarmrt.cli.process.unexpected import show_unexpected
from swarmrt.cli.records import audit, checkpoints, merge, models, trace
from swarmrt.cli.swarm import (
    bootstrap,
    check,
    configs,
    local,
    own_peers,
    rebalance,
    serve,
    train,
)
from swarmrt.errors import SwarmError, UsageError
from swarmrt.foreign import for_terminal

app = typer.Typer(
    name="swarmrt",
    help="Decentralised pipeline training on volatile peers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.command("init")(configs.init)
app.command("config")(configs.config)
app.command("check")(check.check)
app.command("local")(local.local)
app.command("bootstrap")(bootstrap.bootstrap)
app.command("serve")(serve.serve)
app.command("pause")(own_peers.pause)
app.command("resume")(own_peers.resume)
app.command("stop")(own_peers.stop)
app.command("train")(train.train)
app.command("rebalance")(rebalance.rebalance)
app.command("invite")(access.invite)
app.command("members")(access.members)
app.command("revoke")(access.revoke)
app.add_typer(owner.owner, name="owner")
app.command("audit")(audit.audit)
app.command("trace")(trace.trace)
app.command("doctor")(doctor.doctor)
app.command("failpoints")(failpoints.failpoints)
app.command("chaos")(chaos.chaos)
app.command("plan")(plan.plan)
app.command("simulate")(simulate.simulate)
app.add_typer(bench.bench, name="bench")
app.add_typer(checkpoints.checkpoint, name="checkpoint")
app.command("reference")(models.reference)
app.command("export")(models.export)
app.command("merge")(merge.merge)
app.command("generate")(models.generate)


def _version(asked: bool) -> None:
    if asked:
        print(f"swarmrt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Exit codes: 0 done or drained, 1 the run failed, 2 the input is wrong."""
    try:
        app()
    except SwarmError as error:
        print(f"swarmrt: {for_terminal(str(error))}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except Exception as error:  # noqa: BLE001 - told whole, and in one line
        show_unexpected(error)
        sys.exit(1)
