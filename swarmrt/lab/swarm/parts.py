"""The parts of a swarm on this machine: directory node, trainer, peers."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from swarmrt.errors import RunError, UsageError
from swarmrt.ids import SeatId, seat_of
from swarmrt.lab.swarm.part import KILL_S, POLL_S, Note, Part
from swarmrt.runtime.launching.launching import Launcher
from swarmrt.runtime.owner.asking import ask
from swarmrt.runtime.owner.words import Act


class Bootstrap(Part):
    """The directory node."""

    killed = "bootstrap"

    def _next_port(self) -> int:
        """Return the port that it has had before. Raises RunError when that is not free again."""
        deadline = time.monotonic() + KILL_S
        while self.listens:
            if time.monotonic() > deadline:
                raise RunError(f"the earlier daemon of {self.name} still listens")
            time.sleep(POLL_S)
        return self._port or super()._next_port()


class Trainer(Part):
    """The process of `swarmrt train`, in one incarnation after the other."""

    killed = "trainer"

    def __init__(
        self,
        name: str,
        folder: Path,
        identity: Path,
        launcher: Launcher,
        note: Note,
        restart: Callable[[str], None],
    ) -> None:
        super().__init__(name, folder, identity, launcher, note)
        self._restart = restart

    def resume(self, failpoints: str = "") -> None:
        """Start a new incarnation: it goes on from what the peers hold, or from a checkpoint.

        `failpoints` like "trainer.checkpoint.before_rename=kill" (`swarmrt failpoints` lists them)
        are on in it. Raises RunError while the earlier one lives, UsageError for bad failpoints.
        """
        if self.is_alive:
            raise RunError("the trainer is running; kill or terminate it first")
        self._restart(failpoints)


class Peer(Part):
    """A process of `swarmrt serve`. While it is paused its libp2p daemon goes on: its sockets still
    answer."""

    def __init__(
        self,
        folder: Path,
        stages: tuple[int, ...],
        number: int,
        launcher: Launcher,
        note: Note,
        *,
        is_spare: bool = False,
    ) -> None:
        super().__init__(folder.name, folder, folder / "identity", launcher, note)
        self.stages, self.number, self.is_spare = stages, number, is_spare
        self.is_paused = False
        self._timer: threading.Timer | None = None

    @property
    def is_mover(self) -> bool:
        """Return whether it serves where it helps most: its stages are those that the trainer
        says."""
        return not self.stages

    @property
    def stage(self) -> int:
        """Return the stage of its only seat, or of its first one."""
        return self.stages[0]

    @property
    def seat(self) -> SeatId:
        """Return its only seat, or its first one."""
        return seat_of(self.peer_id, self.stage)

    @property
    def is_running(self) -> bool:
        """Alive, and neither paused nor draining."""
        return self.is_alive and not self.is_paused and not self.is_draining

    def pause(self, seconds: float | None = None) -> None:
        """SIGSTOP, until `resume` or until this time is over."""
        self._stop_timer()
        self._suffers("stop")
        self.is_paused = True
        self.signal(signal.SIGSTOP)
        if seconds is not None:
            self._timer = threading.Timer(seconds, self.resume)
            self._timer.daemon = True
            self._timer.start()

    def resume(self) -> None:
        """SIGCONT."""
        self._stop_timer()
        self.signal(signal.SIGCONT)
        self.is_paused = False

    def pause_by_owner(self) -> None:
        """Have the owner of its machine take the device, as `swarmrt pause` does: it goes on
        without. Raises RunError when it does not let go."""
        self._suffers("pause-owner")
        self.ask_as_owner("pause")

    def resume_by_owner(self) -> None:
        """Have the owner lend the device again. Raises RunError when it does not take it."""
        self.ask_as_owner("resume")

    def ask_as_owner(self, act: Act) -> None:
        """Do what `swarmrt pause`, `resume` or `stop` does. Raises RunError when it fails."""
        try:
            [told] = ask(act, [str(self.pid)])
        except UsageError as error:
            raise RunError(f"{self.name}: {error}") from None
        if told.error:
            raise RunError(f"{self.name}: {told.error}")

    def _end(self) -> None:
        self._stop_timer()
        super()._end()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
