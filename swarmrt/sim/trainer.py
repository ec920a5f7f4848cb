"""A simulated trainer: the production TrainerCore, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarmrt.ids import PeerId
from swarmrt.messages import Message
from swarmrt.scheduler.events import CheckpointFailed, CheckpointSaved, Received, Started
from swarmrt.scheduler.instructions import (
    Instruction,
    RaiseEpoch,
    ReportCheckpointFailed,
    ReportEvaluation,
    ReportPeer,
    ReportStep,
    ReportVoid,
    ReportWaiting,
    SaveCheckpoint,
    Send,
    Stop,
)
from swarmrt.scheduler.trainer import TrainerSettings
from swarmrt.sim.clock import Clock
from swarmrt.sim.network import Network
from swarmrt.sim.peer import History
from swarmrt.sim.process import Process


class SimulatedTrainer:
    def __init__(
        self,
        settings: TrainerSettings,
        clock: Clock,
        network: Network,
        snapshot_of: Callable[[PeerId, int], History | None],
    ) -> None:
        self.settings = settings
        self.steps: list[ReportStep] = []
        self.evaluations: list[ReportEvaluation] = []
        self.voids: list[ReportVoid] = []
        self.checkpoints: dict[int, tuple[History, ...]] = {}
        self.stopped: Stop | None = None
        self._clock, self._network = clock, network
        self._snapshot_of = snapshot_of
        self.process = Process(settings, clock, self._act)
        network.connect(settings.me, self._receive)

    def start(self) -> None:
        self.process.feed(Started())

    def _receive(self, sender: PeerId, message: Message, payload: Any) -> None:
        self.process.feed(Received(sender, message))

    def _act(self, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message, payload):
                self._network.send(self.settings.me, to, message, payload)
            case SaveCheckpoint():
                self._clock.after(0.5, lambda: self._save(instruction))
            case ReportStep():
                self.steps.append(instruction)
            case ReportEvaluation():
                self.evaluations.append(instruction)
            case ReportVoid():
                self.voids.append(instruction)
            case ReportWaiting() | ReportPeer() | RaiseEpoch() | ReportCheckpointFailed():
                pass
            case Stop():
                self.stopped = instruction
                self.process.alive = False
            case _:
                raise AssertionError(f"a trainer cannot {instruction}")

    def _save(self, what: SaveCheckpoint) -> None:
        states = [
            next((s for s in map(lambda d: self._snapshot_of(d, what.version), donors) if s), None)
            for donors in what.donors
        ]
        found = tuple(state for state in states if state is not None)
        if len(found) < len(states):
            self.process.feed(CheckpointFailed(what.version, "no donor has it"))
            return
        self.checkpoints[what.version] = found
        self.process.feed(CheckpointSaved(what.version))
