"""The first frame each way of a connection: who is at this end, and if the other one is let in."""

from __future__ import annotations

from swarmrt.errors import AccessError, WireError
from swarmrt.ids import PeerId
from swarmrt.runtime.access.door import Door
from swarmrt.runtime.carriers.beacons import Agreement, Beacons
from swarmrt.wire.kinds import Framed, Hello
from swarmrt.wire.versions import Versions


def hello_of(
    door: Door,
    speaks: Versions,
    process: str,
    stream_key: str,
    beacons: Beacons | None,
    agreement: Agreement | None,
) -> Hello:
    """Return what this end says of itself on a connection."""
    key = agreement.ours.secret.hex() if agreement is not None else ""
    addresses = tuple(beacons.addresses()) if beacons is not None else ()
    return Hello(*speaks, door.run, key, addresses, stream_key, door.shown(), process)


def checked_hello(door: Door, speaks: Versions, peer: PeerId, message: Framed) -> tuple[Hello, int]:
    """Return the hello, and the version of the protocol that both ends use, once it is clear that
    the other end is of this run and shows nothing false. Raises WireError."""
    if not isinstance(message, Hello):
        raise WireError(f"{type(message).__name__} came before the hello")
    version = speaks.common(Versions(message.least, message.most))
    if message.run != door.run:
        raise WireError(f"it is of run {message.run!r:.80}, this process of run {door.run!r}")
    try:
        door.greet(peer, message.shown)
    except AccessError as error:
        raise WireError(f"it is not let in: {error}") from None
    return message, version
