"""The commands `swarmrt invite`, `members` and `revoke`: who may come into a run, and who has."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarmrt.cli.options.durations import parse_duration
from swarmrt.cli.options.papers import DELEGATION, OWNER, owner_signer
from swarmrt.errors import AccessError, UsageError

if TYPE_CHECKING:
    from swarmrt.trust.book import AccessBook

RUN_DIR = typer.Argument(..., metavar="RUN_DIR")


def invite(
    run: Path = typer.Argument(..., metavar="RUN_DIR", help="A run's folder, or its RUN.toml."),
    uses: int = typer.Option(1, min=1, max=1_000_000, help="How many peers may come by it."),
    expires: str = typer.Option("7d", "--expires", metavar="TIME", help="Like 12h, 7d."),
    stages: list[int] = typer.Option(
        [], "--stage", metavar="N", help="A stage that may be served; all by default."
    ),
    note: str = typer.Option("", "--note", metavar="WHO", help="For you: whom it is for."),
    at: list[str] = typer.Option(
        [], "--at", metavar="ADDR", help="Address that newcomers join at; may be repeated."
    ),
    owner: Path | None = OWNER,
    delegation: Path | None = DELEGATION,
) -> None:
    """Print a join line, which is a secret: whoever has it may join, as often as it allows."""
    from swarmrt.config_toml import load_config
    from swarmrt.runtime.access.invitations import printed_line
    from swarmrt.runtime.access.reception import AccessFile
    from swarmrt.runtime.daemon.daemon import check_address
    from swarmrt.trust.book import Invited
    from swarmrt.trust.checking import check
    from swarmrt.trust.joining_line import JoinLine
    from swarmrt.trust.statements import MAX_STAGES, Invitation

    in_folder = run.is_dir()
    config = load_config(run / "config.toml" if in_folder else run)
    if any(not 0 <= stage < MAX_STAGES for stage in stages):
        raise UsageError(f"--stage {stages}: there is no such stage")
    if len(note) > 64:
        raise UsageError("--note: write at most 64 characters")
    for address in at:
        check_address(address, with_peer=True)
    signer = owner_signer(config.run.name, owner, delegation)
    known = printed_line(run, signer) if in_folder else None
    addresses = tuple(at) or (known.addresses if known is not None else ())
    if not addresses:
        raise UsageError(
            f"{run}: it is not known where the run is; start it with `swarmrt train`, or pass the "
            "address of its directory node with --at"
        )
    until = time.time() + parse_duration(expires)
    made = signer.invite(uses, until, sorted(set(stages)), note)
    if in_folder:
        said = check(made.token, signer.run, Invitation)
        AccessFile(run).write(Invited(time.time(), said.jti, note, uses, until, said.stages))
    print(JoinLine(signer.run, addresses, made))


def members(run_dir: Path = RUN_DIR) -> None:
    """Print who was let in, by which invitation, since when, and at how many commits it was."""
    from swarmrt.observe.live.members import describe_members

    for line in describe_members(run_dir, _book(run_dir)):
        print(line)


def revoke(
    run_dir: Path = RUN_DIR,
    who: str = typer.Argument(..., metavar="WHO", help="A peer, an invitation, or its note."),
    why: str = typer.Option("", "--why", help="What the peer is told."),
) -> None:
    """Turn out a peer, or all that came by an invitation; what it did in this step is done again.

    A trainer that is running takes it in within a second. It cannot be taken back.
    """
    from swarmrt.runtime.access.reception import AccessFile
    from swarmrt.trust.book import Revoked

    book = _book(run_dir)
    if not who or not book.knows(who):
        raise AccessError(
            f"{run_dir}: nobody there is called {who!r}, and no invitation; `swarmrt members "
            f"{run_dir}` lists them"
        )
    AccessFile(run_dir).write(Revoked(time.time(), who, why[:200]))
    _, hit = book.revoke(who, why, time.time())
    print(f"revoked: {', '.join(hit) if hit else 'nobody had come by it yet'}")


def _book(run_dir: Path) -> AccessBook:
    from swarmrt.config_toml import load_config
    from swarmrt.runtime.access.reception import AccessFile
    from swarmrt.trust.book import AccessBook

    config = load_config(run_dir / "config.toml")
    book = AccessBook(config.run.access, config.num_stages)
    book.read(AccessFile(run_dir).read())
    return book
