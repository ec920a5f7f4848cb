"""The libp2p daemon of a process: started by us, and gone when we are, however we end.

hivemind ships the daemon. Started by hivemind it shares our terminal, so Ctrl-C would reach it
before we have drained, and it survives us when we are killed. Ours runs in a session of its own,
keeps its sockets in a private folder, and is run by a small keeper that ends both when the pipe
that only we hold is closed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hivemind.p2p import P2P
from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import (
    ControlFailure,
    raise_if_failed,
    read_pbmsg_safe,
    write_pbmsg,
)
from hivemind.proto import p2pd_pb2
from hivemind.utils.multiaddr import Multiaddr

from swarmrt.errors import DirectoryError, RunError, SwarmError
from swarmrt.foreign import printable
from swarmrt.ids import PeerId, RunId
from swarmrt.runtime.access.identity import Identity, open_identity
from swarmrt.runtime.daemon.answering import watch_answers
from swarmrt.runtime.daemon.flags import daemon_environment, daemon_flags
from swarmrt.runtime.faults.standing_still import stand_still
from swarmrt.runtime.reach.addresses import host_of
from swarmrt.runtime.reach.multiaddrs import (
    CIRCUIT,
    encode_multiaddr,
    is_direct_and_global,
    worth_telling,
)
from swarmrt.runtime.reach.place import (
    Place,
    Standing,
    check_free,
    has_address,
    own_address,
    standing_of,
)

START_S = 120.0  # a loaded machine needs long; a daemon that fails says so at once
STOP_S = 10.0
LOOK_S = 0.2  # between two looks at the daemon's connections
MAX_SOCKET_BYTES = 103  # of the path of a Unix socket, on the system that allows least
LONGEST_SOCKET = "p2pclient-XXXXXXXXXXX.sock"  # hivemind's own
MAX_OWN = 5  # addresses of this machine that are told to others

# Runs the daemon until it ends, or until the pipe that only we hold is closed: by us, or because we
# are gone. Then nothing is left of it, nor of the folder.
KEEPER = """
folder=$1; shift
exec 3<&0
"$@" </dev/null 3<&- & daemon=$!
{ read -r _ <&3; kill "$daemon"; } & reader=$!
wait "$daemon"
rm -rf "$folder"
kill "$reader" 2>/dev/null
"""


class Daemon:
    """A running daemon. Use `Daemon.start`, and `close` at the end."""

    def __init__(self, folder: Path, identity: Identity, standing: Standing) -> None:
        self.identity, self.standing = identity, standing
        self.p2p: P2P
        self._own: list[str] = []  # where others see us, the best ones first
        self.relayed: Sequence[str] = ()  # addresses at relays that let others through to us
        self._folder = folder
        self._control = folder / "p2pd.sock"
        self._process: Process | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._output: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        identity_path: Path | None,
        place: Place,
        bootstrap: Sequence[str],
        standing: Standing | None = None,
    ) -> Daemon:
        """Start a daemon. Without an identity file, the process has a new identity.

        Raises UsageError for a bad identity file or a port that is taken, DirectoryError for a bad
        address, and RunError when the daemon does not start.
        """
        check_free(place)
        for address in bootstrap:
            check_address(address, with_peer=True)
        standing = standing or standing_of(place, bootstrap, own_address)
        folder = new_folder()
        try:
            identity = open_identity(identity_path or folder / "identity")
            daemon = cls(folder, identity, standing)
        except BaseException:
            shutil.rmtree(folder)
            raise
        try:
            await daemon._start(place, bootstrap)
        except BaseException:
            await daemon.close()
            raise
        return daemon

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    def addresses(self) -> list[str]:
        """Return the multiaddrs at which others reach this process, with its id, the best ones
        first."""
        return [*self._own[:MAX_OWN], *self.relayed]

    def hosts(self) -> list[str]:
        """The IP addresses of this machine that others see, or those that are announced."""
        hosts = filter(None, map(host_of, self._own))
        return [h for h in dict.fromkeys(hosts) if has_address(h)]

    async def look_again(self) -> bool:
        """Ask where others see this process by now; whether that has changed."""
        before = self._own
        self._own = worth_telling(await self.p2p.get_visible_maddrs())
        return self._own != before

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Tell the daemon where a peer is, and connect to it. Raises RunError.

        Peer ids and addresses come from others, so they may be nonsense.
        """
        try:
            where = [
                encode_multiaddr(address.removesuffix(f"/p2p/{peer}")) for address in addresses
            ]
            wanted = p2pd_pb2.ConnectRequest(peer=PeerID.from_base58(peer).to_bytes(), addrs=where)
            _, writer = await self._ask(type=p2pd_pb2.Request.CONNECT, connect=wanted)
        except (ControlFailure, ValueError) as error:
            raise _out_of_reach(f"connect to {peer}", error) from None
        writer.close()

    async def open_stream(self, peer: PeerId, protocol: str) -> tuple[StreamReader, StreamWriter]:
        """A stream to a peer. Raises RunError when the peer or the protocol cannot be reached."""
        try:
            wanted = p2pd_pb2.StreamOpenRequest(
                peer=PeerID.from_base58(peer).to_bytes(), proto=[protocol]
            )
            return await self._ask(type=p2pd_pb2.Request.STREAM_OPEN, streamOpen=wanted)
        except (ControlFailure, ValueError) as error:
            raise _out_of_reach(f"open a stream to {peer}", error) from None

    async def is_relayed(self, peer: PeerId) -> bool:
        """Return whether the daemon has connections to a peer, and all of them through relays."""
        peers = await self.p2p.list_peers()
        found = [info for info in peers if info.peer_id.to_base58() == peer]
        return bool(found) and all(CIRCUIT in str(a) for info in found for a in info.addrs)

    async def wait_for_hole(
        self, peer: PeerId, addresses: Sequence[str], patience_s: float
    ) -> None:
        """Give a connection through a relay time to become a direct one, where that may be.

        The daemons of both ends punch holes into their routers by themselves, once four other hosts
        have seen each of them at one public address. Streams opened after that go straight.
        """
        both = (addresses, self._own)
        if not all(any(map(is_direct_and_global, some)) for some in both):
            return
        end = asyncio.get_running_loop().time() + patience_s
        while await self.is_relayed(peer) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(LOOK_S)  # the daemon does not say when it has succeeded

    async def watch(self) -> None:
        """Wait while the daemon lives, and say when it does not answer. Raises RunError when it
        ends by itself."""
        assert self._output is not None
        asking = asyncio.create_task(watch_answers(self._ask_who_it_is))
        try:
            await asyncio.wait([self._output, asking], return_when=asyncio.FIRST_COMPLETED)
        finally:
            asking.cancel()
        if asking.done():
            await asking  # a bug in it
        last = self._said[-1] if self._said else "it said nothing"
        raise RunError(f"the libp2p daemon of this process is gone; its last words: {last}")

    async def _ask_who_it_is(self) -> None:
        _, writer = await self._ask(type=p2pd_pb2.Request.IDENTIFY)
        writer.close()

    def stand_still(self, seconds: float) -> None:
        """Let the daemon do nothing for a while. Its sockets are open, and nobody answers."""
        assert self._process is not None
        stand_still(-self._process.pid, seconds)

    async def close(self) -> None:
        """Stop the daemon and remove its sockets. May be called again."""
        if hasattr(self, "p2p"):
            await self.p2p.shutdown()
        if self._process is not None and self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
        if self._output is not None:
            await self._output
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _ask(self, **request: Any) -> tuple[StreamReader, StreamWriter]:
        """Ask on a socket of its own, which is closed if the daemon refuses.

        What hivemind's own calls do, but they leave their sockets open when they fail.
        """
        reader, writer = await asyncio.open_unix_connection(self._control)
        response = p2pd_pb2.Response()
        try:
            await write_pbmsg(writer, p2pd_pb2.Request(**request))
            await read_pbmsg_safe(reader, response)
            raise_if_failed(response)
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _start(self, place: Place, bootstrap: Sequence[str]) -> None:
        control = f"/unix{self._control}"
        self._process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", KEEPER, "sh", str(self._folder),
            str(files("hivemind.hivemind_cli") / "p2pd"),
            *daemon_flags(control, self.identity.path, place, self.standing, bootstrap),
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            env=daemon_environment(self.standing),
            start_new_session=True,
        )  # fmt: skip
        ready = asyncio.get_running_loop().create_future()
        self._output = asyncio.create_task(self._read_output(ready, bootstrap))
        try:
            async with asyncio.timeout(START_S):
                await ready
        except TimeoutError:
            raise RunError(f"the libp2p daemon said nothing for {START_S:.0f} s") from None
        try:
            async with asyncio.timeout(START_S):
                self.p2p = await _replica_in(self._folder).replicate(Multiaddr(control))
                self._own = worth_telling(await self.p2p.get_visible_maddrs())
        except TimeoutError:
            raise RunError(f"the libp2p daemon did not answer for {START_S:.0f} s") from None

    async def _read_output(self, ready: asyncio.Future[None], bootstrap: Sequence[str]) -> None:
        """The daemon's words: when it is up, and why it is not."""
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode(errors="replace").strip()
            self._said.append(printable(text))
            if text.startswith("Peer ID:") and not ready.done():
                ready.set_result(None)
        if not ready.done():
            last = self._said[-1] if self._said else "it said nothing"
            ready.set_exception(_why_not_started(last, bootstrap))


def new_folder() -> Path:
    """Make a private folder with a path that is short enough for sockets in it.

    Where the one for temporary files has a long path, it is in /tmp.
    """
    room = MAX_SOCKET_BYTES - len(f"/swarmrt-XXXXXXXX/{LONGEST_SOCKET}")
    is_long = len(os.fsencode(tempfile.gettempdir())) > room
    return Path(tempfile.mkdtemp(prefix="swarmrt-", dir="/tmp" if is_long else None))


def _out_of_reach(what: str, error: Exception) -> RunError:
    return RunError(f"cannot {printable(what)}: {printable(str(error))}")


def _replica_in(folder: Path) -> type[P2P]:
    """Return a client by hivemind of a daemon that is up, with its own socket in our folder."""

    class Replica(P2P):  # type: ignore[misc]
        _UNIX_SOCKET_PREFIX = f"/unix{folder}/"

    return Replica


def _why_not_started(last_words: str, bootstrap: Sequence[str]) -> SwarmError:
    if "bootstrap peers" in last_words:
        return no_answer(bootstrap)
    return RunError(f"the libp2p daemon did not start: {last_words}")


def no_answer(join: Sequence[str], run: RunId | None = None) -> DirectoryError:
    """Return the error that nobody of the directory, or of a run's own, has answered."""
    if run is None:
        return DirectoryError(
            f"no directory answers at {', '.join(join)}; is it up, and reachable from here?"
        )
    return DirectoryError(
        f"no directory of run {run} answers at {', '.join(join)}; is it up and reachable from "
        "here, and is your invitation still good?"
    )


def check_address(address: str, *, with_peer: bool) -> None:
    """Check that this is a multiaddr. Raises DirectoryError when it is not."""
    example = "/ip4/1.2.3.4/tcp/5678" + ("/p2p/Qm…" if with_peer else "")
    try:
        parsed = Multiaddr(address)
        valid = not with_peer or bool(parsed["p2p"])
    except Exception:  # noqa: BLE001 - its parser raises many kinds
        valid = False
    if not valid:
        raise DirectoryError(f"{address!r} is not an address; one looks like {example}")
