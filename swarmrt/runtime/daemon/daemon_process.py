"""The process of a libp2p daemon: started by us, and gone when we are, however we end.

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
from contextlib import suppress
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
from swarmrt.runtime.access.identity import Identity
from swarmrt.runtime.daemon.flags import daemon_environment, daemon_flags
from swarmrt.runtime.faults.standing_still import stand_still
from swarmrt.runtime.reach.multiaddrs import encode_multiaddr
from swarmrt.runtime.reach.place import Place, Standing

START_S = 120.0  # a loaded machine needs long; a daemon that fails says so at once
STOP_S = 10.0
MAX_SOCKET_BYTES = 103  # of the path of a Unix socket, on the system that allows least
LONGEST_SOCKET = "p2pclient-XXXXXXXXXXX.sock"  # hivemind's own

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


class DaemonProcess:
    """A daemon that runs. Use `DaemonProcess.start`, and `close` at the end."""

    def __init__(self) -> None:
        self.p2p: P2P  # hivemind's client of it
        self.folder = new_folder()  # of its sockets
        self._control = self.folder / "p2pd.sock"
        self._process: Process
        self._said: deque[str] = deque(maxlen=20)
        self._output: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, identity: Identity, place: Place, standing: Standing, bootstrap: Sequence[str]
    ) -> DaemonProcess:
        """Start one. Raises DirectoryError when nobody answers at `bootstrap`, and RunError when
        it does not start."""
        daemon = cls()
        try:
            await daemon._start(identity, place, standing, bootstrap)
        except BaseException:
            await daemon.close()
            raise
        return daemon

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_gone(self) -> bool:
        return self._output is None or self._output.done()

    async def wait(self) -> str:
        """Wait until it ends; return its last words."""
        assert self._output is not None
        await asyncio.wait([self._output])
        return self._last_words()

    async def ask(self, **request: Any) -> tuple[p2pd_pb2.Response, StreamReader, StreamWriter]:
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
        return response, reader, writer

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Tell the daemon where a peer is, and connect to it. Raises RunError.

        Peer ids and addresses come from others, so they may be nonsense.
        """
        try:
            where = [
                encode_multiaddr(address.removesuffix(f"/p2p/{peer}")) for address in addresses
            ]
            wanted = p2pd_pb2.ConnectRequest(peer=PeerID.from_base58(peer).to_bytes(), addrs=where)
            _, _, writer = await self.ask(type=p2pd_pb2.Request.CONNECT, connect=wanted)
        except (ControlFailure, ValueError) as error:
            raise _out_of_reach(f"connect to {peer}", error) from None
        writer.close()

    async def open_stream(self, peer: PeerId, protocol: str) -> tuple[StreamReader, StreamWriter]:
        """A stream to a peer. Raises RunError when the peer or the protocol cannot be reached."""
        try:
            wanted = p2pd_pb2.StreamOpenRequest(
                peer=PeerID.from_base58(peer).to_bytes(), proto=[protocol]
            )
            _, reader, writer = await self.ask(type=p2pd_pb2.Request.STREAM_OPEN, streamOpen=wanted)
            return reader, writer
        except (ControlFailure, ValueError) as error:
            raise _out_of_reach(f"open a stream to {peer}", error) from None

    def stand_still(self, seconds: float) -> None:
        """Let it do nothing for a while. Its sockets are open, and nobody answers. Nothing happens
        when it has ended."""
        with suppress(ProcessLookupError):
            stand_still(-self._process.pid, seconds)

    def die(self) -> None:
        """Kill it, and its keeper with it. Nothing happens when it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Stop it and remove its sockets. May be called again."""
        if hasattr(self, "p2p"):
            await self.p2p.shutdown()
        if hasattr(self, "_process") and self._process.returncode is None:
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
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _start(
        self, identity: Identity, place: Place, standing: Standing, bootstrap: Sequence[str]
    ) -> None:
        control = f"/unix{self._control}"
        self._process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", KEEPER, "sh", str(self.folder),
            str(files("hivemind.hivemind_cli") / "p2pd"),
            *daemon_flags(control, identity.file_for(self.folder), place, standing, bootstrap),
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            env=daemon_environment(standing),
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
                self.p2p = await _replica_in(self.folder).replicate(Multiaddr(control))
        except TimeoutError:
            raise RunError(f"the libp2p daemon did not answer for {START_S:.0f} s") from None
        except (OSError, EOFError) as error:
            raise RunError(f"the libp2p daemon does not answer: {error}") from None

    async def _read_output(self, ready: asyncio.Future[None], bootstrap: Sequence[str]) -> None:
        """The daemon's words: when it is up, and why it is not."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode(errors="replace").strip()
            self._said.append(printable(text))
            if text.startswith("Peer ID:") and not ready.done():
                ready.set_result(None)
        if not ready.done():
            ready.set_exception(_why_not_started(self._last_words(), bootstrap))

    def _last_words(self) -> str:
        return self._said[-1] if self._said else "it said nothing"


def _out_of_reach(what: str, error: Exception) -> RunError:
    return RunError(f"cannot {printable(what)}: {printable(str(error))}")


def new_folder() -> Path:
    """Make a private folder with a path that is short enough for sockets in it.

    Where the one for temporary files has a long path, it is in /tmp.
    """
    room = MAX_SOCKET_BYTES - len(f"/swarmrt-XXXXXXXX/{LONGEST_SOCKET}")
    is_long = len(os.fsencode(tempfile.gettempdir())) > room
    return Path(tempfile.mkdtemp(prefix="swarmrt-", dir="/tmp" if is_long else None))


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
