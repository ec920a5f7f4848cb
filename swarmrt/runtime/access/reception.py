"""The trainer's reception: it lets in who was invited, and turns out who was revoked.

What it decides stands in `access.jsonl` of the run's folder. `swarmrt invite` and `swarmrt revoke`
write lines there too, which take effect within a second.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from swarmrt.config import RunConfig
from swarmrt.errors import UsageError
from swarmrt.ids import PeerId
from swarmrt.messages import Knock, NotInvited, Welcome
from swarmrt.runtime.access.door import GuardedDoor
from swarmrt.trust.book import AccessBook, AnyEntry
from swarmrt.trust.signing import Signer

log = logging.getLogger("swarmrt.reception")

MEMBERSHIP_S = 3600.0
LOOK_S = 1.0  # between looks into the book

OnTurnedOut = Callable[[PeerId, str], None]


class AccessFile:
    """The file `access.jsonl`: it is read from where the last reading ended."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "access.jsonl"
        self._read_bytes = 0
        self._decoder = msgspec.json.Decoder(AnyEntry)

    def read(self, *, skip: bool = False) -> list[AnyEntry]:
        """Return the lines that are new. One that is none of the book's raises UsageError, or is
        told of and skipped."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read_bytes)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]  # another process may be writing the last one
        self._read_bytes += len(whole)
        entries: list[AnyEntry] = []
        for line in filter(bytes.strip, whole.splitlines()):
            try:
                entries.append(self._decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                wrong = f"{self.path}: not a line of an access book: {error}"
                if not skip:
                    raise UsageError(wrong) from None
                log.warning("%s", wrong)
        return entries

    def write(self, entry: AnyEntry) -> None:
        """Add a line. Raises UsageError when that cannot be."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                before_bytes, line = file.tell(), msgspec.json.encode(entry) + b"\n"
                if file.write(line) < len(line):  # a torn line would spoil the book
                    file.truncate(before_bytes)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written: {error.strerror}") from None


class Reception:
    """Answers who knocks. `watch` beside it."""

    def __init__(
        self,
        config: RunConfig,
        signer: Signer,
        door: GuardedDoor,
        file: AccessFile,
        targets_key: bytes,
    ) -> None:
        """Read the book; `targets_key` is for those who serve the last stage.

        Raises UsageError when the book is damaged.
        """
        self._signer, self._door, self._file = signer, door, file
        self._num_stages, self._targets_key = config.num_stages, targets_key
        self.book = AccessBook(config.run.access, config.num_stages)
        self.book.read(file.read())
        door.bar(PeerId(who) for who in self.book.revoked)

    def answer(self, peer: PeerId, knock: Knock) -> Welcome | NotInvited:
        """Say whether the peer is a member from now on."""
        now = time.time()
        verdict = self.book.ask(self._door.credential(peer), knock.stages, now)
        if verdict.refusal:
            return NotInvited(verdict.refusal)
        try:
            for entry in verdict.entries:
                self._file.write(entry)
        except UsageError as error:  # a full disk, say: whoever is not written down is known till
            log.warning("%s", error)  # this trainer ends, and is asked for its invitation again
        until = now + MEMBERSHIP_S
        token = self._signer.membership(peer, verdict.stages, until, verdict.invitation)
        self._door.greet(peer, token)
        serves_last = self._num_stages - 1 in verdict.stages
        return Welcome(token, self._targets_key.hex() if serves_last else "")

    def turn_out(self, peer: PeerId, why: str) -> None:
        """Take a peer's membership for good."""
        entry, _ = self.book.revoke(peer, why, time.time())
        self._door.bar([peer])
        try:
            self._file.write(entry)
        except UsageError as error:
            log.warning("%s", error)

    async def watch(self, on_turned_out: OnTurnedOut) -> None:
        """Follow what the owner's commands write into the book."""
        while True:
            await asyncio.sleep(LOOK_S)
            for peer in self.book.read(self._file.read(skip=True)):
                self._door.bar([peer])
                on_turned_out(peer, self.book.revoked[peer])
