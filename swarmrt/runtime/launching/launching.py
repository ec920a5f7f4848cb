"""The processes that swarmrt starts by itself, for swarms on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

from swarmrt.runtime.launching.forking import Forked, ForkServer, can_fork
from swarmrt.runtime.process.own_output import VARIABLE as OUTPUT

COMMAND = (sys.executable, "-P", "-m", "swarmrt")
"""`-P`: no file of the working folder passes for a module."""

Launched = subprocess.Popen[bytes] | Forked


class Launcher:
    """Starts the processes of a swarm, which leave when we are gone."""

    def __init__(self, title: str, forks: bool = True) -> None:
        """With `forks`, all are forked from one process where the system can.

        `title` is in their command lines then, in place of their arguments.
        """
        self._server: ForkServer | None = None
        if forks and can_fork():
            self._server = ForkServer(COMMAND, environment(), title)

    def start(
        self,
        arguments: Sequence[str],
        papers: Mapping[str, str],
        output: IO[bytes] | None,
        variables: Mapping[str, str] | None = None,
        alone: bool = False,
    ) -> Launched:
        """Run swarmrt in a session of its own: it hears of Ctrl-C from us, in our order.

        `papers` are what it shows to the others, and go to its standard input. Without `output`
        it has ours; else that is a file, open for appending, which it keeps short. One that is
        `alone` is not forked: it uses a device. Raises RunError.
        """
        arguments = [*arguments, "--with-parent", "--papers-on-stdin"]
        variables = dict(variables or {})
        if output is not None:
            variables[OUTPUT] = os.path.abspath(output.name)
        process: Launched
        if self._server is not None and not alone:
            process = self._server.start(arguments, variables, output)
        else:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=subprocess.PIPE,  # its end tells the process that we are gone
                stdout=output,
                stderr=output,
                env={**environment(), **variables},
                start_new_session=True,
                bufsize=0,
            )
        assert process.stdin is not None
        os.write(process.stdin.fileno(), json.dumps(papers).encode() + b"\n")
        return process

    def close(self) -> None:
        """Let go, when all processes have ended."""
        if self._server is not None:
            self._server.close()


def environment() -> dict[str, str]:
    """Return this process's environment without settings: those of the run are in its
    configuration."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SWARMRT_")}
