"""The join line that a trainer prints, kept in the run's folder: it stays over a resumed run."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from swarmrt.errors import AccessError, UsageError
from swarmrt.trust.checking import check
from swarmrt.trust.joining_line import JoinLine, parse_join_line
from swarmrt.trust.signing import Signer
from swarmrt.trust.statements import Invitation

USES = 32
GOOD_S = 7 * 86400.0
LEFT_S = 86400.0  # with less left, another one is made


def line_to_print(
    run_dir: Path, signer: Signer, access: Literal["invited", "open"], addresses: Sequence[str]
) -> JoinLine:
    """Return the run's join line with these addresses: the one printed before, while it is good.

    Raises UsageError when it cannot be kept.
    """
    earlier = printed_line(run_dir, signer)
    invite = earlier.invite if earlier is not None else None
    if access == "open":
        invite = None
    elif invite is None or not _is_good(invite.token, signer):
        invite = signer.invite(USES, time.time() + GOOD_S, note="join line")
    line = JoinLine(signer.run, (), invite).with_addresses(addresses)
    _keep(run_dir / "join", str(line))
    return line


def printed_line(run_dir: Path, signer: Signer) -> JoinLine | None:
    """Return the line that was printed for this run before; None without one."""
    try:
        line = parse_join_line((run_dir / "join").read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, AccessError):
        return None
    return line if line.run == signer.run else None


def _is_good(token: str, signer: Signer) -> bool:
    try:
        return check(token, signer.run, Invitation).expires_at > time.time() + LEFT_S
    except AccessError:
        return False


def _keep(path: Path, text: str) -> None:
    """Write a file that only its user may read."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
