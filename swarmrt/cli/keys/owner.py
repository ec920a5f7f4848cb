"""The command `swarmrt owner`: the key that owns this user's runs."""

from __future__ import annotations

from pathlib import Path

import typer

from swarmrt.cli.options.durations import parse_duration
from swarmrt.cli.options.papers import OWNER, owner_path
from swarmrt.errors import AccessError

owner = typer.Typer(
    help="The key that owns your runs: it is made by the first `swarmrt train`.",
    no_args_is_help=True,
)


@owner.command()
def show(owner_file: Path | None = OWNER) -> None:
    """Print the key's fingerprint, which ends the names of its runs, and its public key."""
    from swarmrt.trust.keys import fingerprint, open_owner_key, public_bytes
    from swarmrt.trust.paseto import to_text

    path = owner_path(owner_file)
    public = open_owner_key(path).public_key()
    print(f"fingerprint  {fingerprint(public)}")
    print(f"public key   {to_text(public_bytes(public))}")
    print(f"file         {path}")


@owner.command()
def backup(
    file: Path = typer.Argument(..., metavar="FILE"), owner_file: Path | None = OWNER
) -> None:
    """Copy the key to a file. Whoever has it owns your runs."""
    from swarmrt.trust.keys import open_owner_key

    path = owner_path(owner_file)
    _write(file, open_owner_key(path))
    print(f"the owner key is in {file}; keep it where nobody else can read it")


@owner.command()
def restore(
    file: Path = typer.Argument(..., metavar="FILE"), owner_file: Path | None = OWNER
) -> None:
    """Take the key from a backup. One that is here already stays, and is an error."""
    from swarmrt.trust.keys import fingerprint, load_owner_key

    path = owner_path(owner_file)
    try:
        key = load_owner_key(file)
    except OSError as error:
        raise AccessError(f"{file}: cannot be read: {error.strerror}") from None
    _write(path, key)
    print(f"the owner key {fingerprint(key.public_key())} is in {path}")


@owner.command()
def delegate(
    to: str = typer.Option(
        ..., "--to", metavar="KEY", help="The public key that `swarmrt owner show` prints there."
    ),
    run_name: str = typer.Option(..., "--run", metavar="NAME", help='The run\'s name, or "*".'),
    expires: str = typer.Option("30d", "--expires", metavar="TIME", help="Like 12h, 30d."),
    owner_file: Path | None = OWNER,
) -> None:
    """Let the trainer on another machine sign in your name, so that your key can stay here.

    Save what is printed to a file there, and pass it to `swarmrt train --delegation`.
    """
    import time

    from swarmrt.config import RUN_NAME
    from swarmrt.trust.keys import open_owner_key, public_bytes, public_key_of
    from swarmrt.trust.paseto import from_text
    from swarmrt.trust.signing import Signer

    if run_name != "*" and not RUN_NAME.fullmatch(run_name):
        raise AccessError(f"--run {run_name}: not a run's name")
    key = public_bytes(public_key_of(from_text(to)))
    signer = Signer(run_name, open_owner_key(owner_path(owner_file)))
    print(signer.delegate(key, time.time() + parse_duration(expires)))


def _write(path: Path, key: object) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from swarmrt.trust.keys import write_owner_key

    assert isinstance(key, Ed25519PrivateKey)
    try:
        write_owner_key(path, key)
    except FileExistsError:
        raise AccessError(f"{path}: there is a file already; move it away first") from None
    except OSError as error:
        raise AccessError(f"{path}: cannot be written: {error.strerror}") from None
