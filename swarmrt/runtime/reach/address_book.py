"""The places of a trainer and of its peers, kept in the run's folder.

A resumed trainer listens at the same ports, so that the lines with which others join stay true, and
finds its swarm where it was, when the node at which it first joined is gone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarmrt.ids import PeerId
from swarmrt.runtime.reach.place import MAX_PORT, Ports

log = logging.getLogger("swarmrt.addresses")

FILE = "addresses.json"
MAX_PEERS = 16  # the newest ones
MAX_OF_PEER = 2  # addresses
MAX_CHARACTERS = 256


class Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    ports: tuple[int, int, int] = Field(default=(0, 0, 0), strict=False)
    peers: dict[str, list[str]] = {}  # libp2p's addresses, the peer seen last at the end


class AddressBook:
    """RUN_DIR/addresses.json. Written whenever something in it changes, in one piece.

    What could not be written is written with the next change.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE
        written = _read(self._path)
        self.ports = Ports(*written.ports)
        self._peers = {PeerId(peer): list(its) for peer, its in written.peers.items()}

    @property
    def addresses(self) -> list[str]:
        """Multiaddrs of the peers, of those seen last first."""
        return [address for its in reversed(self._peers.values()) for address in its]

    def keep_ports(self, ports: Ports) -> None:
        if ports != self.ports:
            self.ports = ports
            self._write()

    def keep(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """The peer is there now. Those that have not been seen for longest are forgotten."""
        its = [a for a in addresses if len(a) <= MAX_CHARACTERS][:MAX_OF_PEER]
        if not its or (self._peers.get(peer) == its and len(self._peers) <= MAX_PEERS):
            return
        self._peers.pop(peer, None)
        self._peers[peer] = its
        while len(self._peers) > MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        self._write()

    def _write(self) -> None:
        ports = (self.ports.libp2p, self.ports.direct, self.ports.udp)
        temporary = self._path.with_suffix(".new")
        text = json.dumps({"ports": ports, "peers": self._peers}, indent=1)
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(self._path)
        except OSError as error:
            log.warning("%s: cannot be written: %s", self._path, error.strerror)
            temporary.unlink(missing_ok=True)


def _read(path: Path) -> Written:
    """Return what was written; nothing, and a warning, when it cannot be understood."""
    try:
        written = Written.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Written()
    except (OSError, ValidationError, ValueError) as error:
        log.warning("%s is damaged, and goes unread: %s", path, str(error).splitlines()[0])
        return Written()
    if not all(0 <= port <= MAX_PORT for port in written.ports):
        log.warning("%s has ports that cannot be, and goes unread", path)
        return Written()
    return written
