"""The papers by which a command belongs to a run: a join line, or its owner's key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarmrt.errors import AccessError, UsageError

if TYPE_CHECKING:
    from swarmrt.trust.joining_line import JoinLine
    from swarmrt.trust.signing import Signer

JOIN_VARIABLE = "SWARMRT_JOIN"
MAX_LINE_BYTES = 64 << 10

JOIN_LINE = typer.Argument(
    None,
    metavar="[JOIN_LINE]",
    help="What `swarmrt train` or `swarmrt invite` printed; or set SWARMRT_JOIN. Not needed where "
    "this machine has joined before.",
    show_default=False,
)
RUN = typer.Option(
    None, "--run", metavar="NAME", help="Which run, where this machine has joined several."
)
OWNER = typer.Option(
    None, "--owner", metavar="FILE", help="The owner key; by default that of this user."
)
DELEGATION = typer.Option(
    None,
    "--delegation",
    metavar="FILE",
    help="Train in another owner's name: what `swarmrt owner delegate` printed there.",
)
PAPERS_ON_STDIN = typer.Option(False, "--papers-on-stdin", hidden=True)


def owner_path(owner: Path | None) -> Path:
    """Return where the owner key is: under the user's configuration folder."""
    if owner is not None:
        return owner
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "swarmrt" / "owner"


def owner_signer(name: str, owner: Path | None, delegation: Path | None = None) -> Signer:
    """Return who signs for a run of this name. The key is made if there is none yet.

    Raises AccessError.
    """
    from swarmrt.trust.keys import open_owner_key
    from swarmrt.trust.signing import Signer

    key = open_owner_key(owner_path(owner))
    return Signer(name, key, _read(delegation) if delegation is not None else "")


def given_line(text: str | None) -> JoinLine | None:
    """Return the join line of the command line or the environment. Raises AccessError."""
    from swarmrt.trust.joining_line import parse_join_line

    text = text or os.environ.get(JOIN_VARIABLE)
    return parse_join_line(text) if text else None


def papers_of_parent() -> dict[str, str]:
    """Read what a launcher hands over in the first line of standard input. Raises UsageError."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)  # no more than the line: what follows are commands
        if not byte or len(line) > MAX_LINE_BYTES:
            raise UsageError("the launching process has handed over no papers")
        line += byte
    papers: dict[str, str] = json.loads(line)
    return papers


def line_of_parent() -> JoinLine:
    """Return the join line that a launcher hands over. Raises UsageError."""
    from swarmrt.trust.joining_line import parse_join_line

    return parse_join_line(papers_of_parent()["join_line"])


def signer_of_parent(name: str) -> Signer:
    """Return who signs with the key that a launcher hands over. Raises UsageError."""
    from swarmrt.trust.keys import private_key_of
    from swarmrt.trust.paseto import from_text
    from swarmrt.trust.signing import Signer

    return Signer(name, private_key_of(from_text(papers_of_parent()["owner"])))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"{path}: cannot be read: {error}") from None
