"""Processes that are forked from one which has loaded the libraries.

To import torch takes a process two seconds of a core. A swarm on one machine does it once: the fork
server imports all that its processes need, and nothing else, so that it has neither threads in the
midst of something nor a device when it is forked. Its launcher and it have a socket:

    launcher ──── arguments, variables; stdin, stdout, stderr, end ────▶ fork server
             ◀─── process id; a pidfd, by which it is signalled ────────

The exit code of the process comes through the pipe `end`. The server goes when the launcher has
gone; the processes then find their standard input at its end.

For Linux, which can name a process by a descriptor, and whose libraries stand a fork.
"""

from __future__ import annotations

import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from swarmrt.errors import RunError

WORD = "fork-server"  # the first argument of such a process
MAX_REQUEST_BYTES = 128 << 10  # one packet
READY = b"ready"
START_S = 120.0  # for the server to load everything, even on a loaded machine
LEAVE_S = 10.0


def can_fork() -> bool:
    """Return whether this system has what it takes."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # an old kernel, or a container that forbids it
        return False
    return True


# ---------------------------------------------------------------------- the launcher's side


class ForkServer:
    """Starts processes by having them forked. Not to be shared by threads."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], title: str) -> None:
        """Start the server, and do not wait until it is ready.

        `command` runs swarmrt; what we add has the server begin. `title` is there to be seen.
        """
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(START_S)
        self._is_ready = False
        with theirs:
            self._process = subprocess.Popen(
                [*command, WORD, str(theirs.fileno()), title],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def start(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        output: IO[bytes] | None,
        errors: IO[bytes] | None = None,
        folder: Path | None = None,
    ) -> Forked:
        """Run swarmrt with these arguments, and with these variables beside the server's own.

        It is in a session of its own. Without `output` it has our standard output and error;
        without `errors` they go to its output, and without `folder` it works in the server's.
        Raises RunError.
        """
        if not self._is_ready:
            self._wait_until_ready()
        asked = {"arguments": arguments, "variables": dict(variables), "folder": str(folder or ".")}
        request = json.dumps(asked).encode()
        stdin, our_stdin = os.pipe()
        our_end, end = os.pipe()
        outputs = (1, 2) if output is None else (output.fileno(), (errors or output).fileno())
        try:
            socket.send_fds(self._channel, [request], [stdin, *outputs, end])
            answer, pidfds, _, _ = socket.recv_fds(self._channel, len(READY) + 16, 1)
        except OSError as error:
            os.close(our_stdin)
            os.close(our_end)
            raise RunError(f"a process could not be forked: {error}") from None
        finally:
            os.close(stdin)
            os.close(end)
        if not answer:
            os.close(our_stdin)
            os.close(our_end)
            raise self._gone()
        return Forked(int(answer), pidfds[0], our_end, our_stdin)

    def close(self) -> None:
        """Let the server go. What came of it is not touched."""
        self._channel.close()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self) -> None:
        try:
            said = self._channel.recv(len(READY))
        except OSError as error:
            raise RunError(f"the libraries were not loaded in {START_S:.0f} s: {error}") from None
        if said != READY:
            raise self._gone()
        self._is_ready = True

    def _gone(self) -> RunError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_S)
        code = self._process.returncode
        return RunError(f"the process that starts the others has ended, with exit code {code}")


class Forked:
    """A process that was forked, with what we need of `subprocess.Popen`."""

    def __init__(self, pid: int, pidfd: int, end: int, stdin: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: IO[bytes] = os.fdopen(stdin, "wb", buffering=0)
        self._pidfd, self._end = pidfd, end
        self._lock = threading.Lock()

    def __del__(self) -> None:
        os.close(self._pidfd)
        os.close(self._end)

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        with self._lock:
            if self.returncode is None and self._has_ended(0.0):
                self.returncode = self._exit_code()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit code. Raises subprocess.TimeoutExpired."""
        self._has_ended(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it. Nothing happens when it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _has_ended(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def _exit_code(self) -> int:
        said = os.read(self._end, 16)
        if said:
            return int(said)
        with suppress(ProcessLookupError):  # the server was killed: nobody would hear of its end
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        return -signal.SIGKILL


# ---------------------------------------------------------------------- the server's side


def serve(channel: socket.socket) -> list[str]:
    """Fork for each request. Return in the new processes alone, with their arguments.

    In the server itself: exit when the launcher is gone.
    """
    gc.freeze()  # so that no collection writes to what all share
    ends: dict[int, tuple[int, int]] = {}  # by pidfd: the process, and where its end is told
    selector = selectors.PollSelector()
    selector.register(channel, selectors.EVENT_READ)
    try:
        channel.send(READY)
    except BrokenPipeError:
        sys.exit(0)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not channel:
                selector.unregister(key.fileobj)
                _tell_end(key.fd, *ends.pop(key.fd))
                continue
            request, descriptors, _, _ = socket.recv_fds(channel, MAX_REQUEST_BYTES, 4)
            if not request:
                sys.exit(0)
            pid = os.fork()
            if pid == 0:
                inherited = [fd for pidfd, (_, end) in ends.items() for fd in (pidfd, end)]
                return _become(json.loads(request), descriptors, [channel.detach(), *inherited])
            pidfd = os.pidfd_open(pid)
            ends[pidfd] = (pid, descriptors.pop())
            selector.register(pidfd, selectors.EVENT_READ)
            for descriptor in descriptors:
                os.close(descriptor)
            socket.send_fds(channel, [str(pid).encode()], [pidfd])


def _tell_end(pidfd: int, pid: int, end: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(end, str(code).encode())
    os.close(end)
    os.close(pidfd)


def _become(request: Mapping[str, Any], descriptors: list[int], inherited: list[int]) -> list[str]:
    """Be as if started anew: own session, folder, standard streams, variables and chance."""
    os.setsid()
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    for descriptor in (*descriptors, *inherited):
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.update(request["variables"])
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python's own is seeded anew by fork
    return list(request["arguments"])
