"""The one line with which a machine joins a run.

    swarmrt:NAME@FINGERPRINT?at=/ip4/1.2.3.4/tcp/7000/p2p/Qm…&at=…#INVITATION

It has the run's id, addresses of processes that answer a newcomer, and an invitation, which is a
secret. A run with open access has no invitation in its line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from swarmrt.config import RUN_NAME
from swarmrt.errors import AccessError
from swarmrt.ids import RunId
from swarmrt.trust.signing import Invite

SCHEME = "swarmrt:"
MAX_ADDRESSES = 16
MAX_CHARACTERS = 16 << 10
FINGERPRINT = re.compile(r"[a-z2-7]{26}")


@dataclass(frozen=True)
class JoinLine:
    """The content of a join line."""

    run: RunId
    addresses: tuple[str, ...]
    invite: Invite | None = None

    def __str__(self) -> str:
        """Return the line. Whoever has it may join, if it has an invitation."""
        at = "&".join(f"at={quote(address, safe='/:')}" for address in self.addresses)
        query = f"?{at}" if at else ""
        invite = f"#{self.invite}" if self.invite is not None else ""
        return f"{SCHEME}{self.run}{query}{invite}"

    def with_addresses(self, addresses: Sequence[str]) -> JoinLine:
        """Return the same line with these addresses first, each once."""
        merged = tuple(dict.fromkeys((*addresses, *self.addresses)))[:MAX_ADDRESSES]
        return JoinLine(self.run, merged, self.invite)


def parse_join_line(text: str) -> JoinLine:
    """Read a join line. Raises AccessError, which says what is wrong with it."""
    text = text.strip()
    if not text.startswith(SCHEME) or len(text) > MAX_CHARACTERS:
        raise AccessError(
            f"{text:.60} is not a join line; one looks like swarmrt:NAME@FINGERPRINT?at=…#…, and "
            "`swarmrt train` or `swarmrt invite` prints it"
        )
    rest, _, invite = text.removeprefix(SCHEME).partition("#")
    run, _, query = rest.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise AccessError(f"the join line's addresses cannot be read: {query:.60}") from None
    if any(key != "at" for key, _ in pairs) or len(pairs) > MAX_ADDRESSES:
        raise AccessError("the join line has parts that this version does not know; is it whole?")
    addresses = tuple(address for _, address in pairs)
    return JoinLine(parse_run_id(run), addresses, Invite.parse(unquote(invite)) if invite else None)


def parse_run_id(text: str) -> RunId:
    """Read NAME@FINGERPRINT. Raises AccessError."""
    name, _, owner = text.partition("@")
    if not RUN_NAME.fullmatch(name) or not FINGERPRINT.fullmatch(owner):
        raise AccessError(
            f"{text[:100]!r} is not a run's id; one looks like NAME@ and 26 letters and digits of "
            "its owner's fingerprint"
        )
    return RunId(name, owner)
