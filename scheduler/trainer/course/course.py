"""The course of a run, as a machine: its phase, the version it is at, and what makes the next.

The table says which phase follows when something happens. Nothing else changes the phase, the
version, or what is under way: whoever wants to calls a method here, which says what holds before it
and after it.

               settled   served    prepares   void      announced  goes back  ends
    HAILING    WAITING                                                        CLOSING
    WAITING              TRAINING                                  WAITING    CLOSING
    TRAINING                       PREPARING                       WAITING    CLOSING
    PREPARING                                 TRAINING  TRAINING              CLOSING
    CLOSING    whatever happens, it is over
"""

from __future__ import annotations

from enum import StrEnum

from swarmrt.scheduler.settings import TrainerSettings
from swarmrt.scheduler.trainer.closing.sync.commit import Commit
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound

UNKNOWN_UPDATE = (-1, 0.0)


class RunPhase(StrEnum):
    HAILING = "hailing"  # a new incarnation asks what the peers hold
    WAITING = "waiting"  # for every stage to be served
    TRAINING = "training"
    PREPARING = "preparing"  # a round is under way
    CLOSING = "closing"  # it is over


class Turn(StrEnum):
    """A thing that happens to a run."""

    SETTLED = "settled"
    SERVED = "served"
    PREPARES = "prepares"
    VOID = "void"
    ANNOUNCED = "announced"
    GOES_BACK = "goes back"
    ENDS = "ends"


NEXT: dict[RunPhase, dict[Turn, RunPhase]] = {
    RunPhase.HAILING: {
        Turn.SETTLED: RunPhase.WAITING,
        Turn.ENDS: RunPhase.CLOSING,
    },
    RunPhase.WAITING: {
        Turn.SERVED: RunPhase.TRAINING,
        Turn.GOES_BACK: RunPhase.WAITING,
        Turn.ENDS: RunPhase.CLOSING,
    },
    RunPhase.TRAINING: {
        Turn.PREPARES: RunPhase.PREPARING,
        Turn.GOES_BACK: RunPhase.WAITING,
        Turn.ENDS: RunPhase.CLOSING,
    },
    RunPhase.PREPARING: {
        Turn.VOID: RunPhase.TRAINING,
        Turn.ANNOUNCED: RunPhase.TRAINING,
        Turn.ENDS: RunPhase.CLOSING,
    },
    RunPhase.CLOSING: dict.fromkeys(Turn, RunPhase.CLOSING),  # of what else an event brings
}


class Course:
    """The course of a run. Its fields are read everywhere, and written here alone."""

    def __init__(self, settings: TrainerSettings) -> None:
        self.phase = RunPhase.HAILING if settings.resume else RunPhase.WAITING
        self.epoch = settings.epoch
        self.version = settings.start_version  # the newest; the step of that number is next
        self.digests = settings.start_digests or ("",) * len(settings.needed)  # of the version
        self.update = UNKNOWN_UPDATE  # round and norm of the one that made this version
        self.round: PrepareRound | None = None  # that is under way
        self.commit: Commit | None = None  # of this version, until all have applied it
        self.void_rounds = 0  # of this step
        self.last_version = settings.steps
        self.has_begun = False  # this incarnation has trained
        self.is_stopping = False  # a stop was asked for

    @property
    def current(self) -> tuple[int, int]:
        """Epoch and step of what is next to be committed."""
        return self.epoch, self.version

    @property
    def is_last_version(self) -> bool:
        return self.version == self.last_version

    # ------------------------------------------------------------------ what happens

    def settle(self) -> None:
        """Go on at the checkpoint's version.

        Before: HAILING. After: WAITING.
        """
        self._turn(Turn.SETTLED)

    def settle_at(self, version: int, update: tuple[int, float], digests: tuple[str, ...]) -> None:
        """Go on at a version that peers hold.

        Before: HAILING. After: WAITING, at that version; nothing of a step is done.
        """
        self._turn(Turn.SETTLED)
        self.version, self.update, self.digests = version, update, digests
        self.void_rounds = 0

    def serve(self) -> None:
        """Begin to train, as every stage is served.

        Before: WAITING, without a round or a commit. After: TRAINING, at the same version.
        """
        assert self.round is None and self.commit is None
        self._turn(Turn.SERVED)
        self.has_begun, self.void_rounds = True, 0

    def prepare(self, round_: PrepareRound) -> None:
        """Begin a round.

        Before: TRAINING, and all have applied this version. After: PREPARING.
        """
        assert self.round is None and self.commit is None
        self._turn(Turn.PREPARES)
        self.round = round_

    def void(self) -> None:
        """Give the round up: its step goes on.

        Before: PREPARING. After: TRAINING, at the same version.
        """
        self._turn(Turn.VOID)
        self.round = None
        self.void_rounds += 1

    def announce(self, commit: Commit, update: tuple[int, float]) -> None:
        """Make the version that a round has prepared the newest.

        Before: PREPARING. After: TRAINING, at the next version, which nobody has applied, and of
        which no digest is known.
        """
        assert commit.version == self.version + 1
        self._turn(Turn.ANNOUNCED)
        self.version, self.update = commit.version, update
        self.digests = ("",) * len(self.digests)
        self.round, self.commit, self.void_rounds = None, commit, 0

    def committed(self, digests: tuple[str, ...]) -> None:
        """End the commit.

        Before: one is under way, in any phase. After: none is, and the digests are known.
        """
        assert self.commit is not None
        self.commit, self.digests = None, digests

    def go_back(self, version: int, digests: tuple[str, ...]) -> None:
        """Go back to the checkpoint's version.

        Before: WAITING or TRAINING. After: WAITING, in a new epoch, with nothing under way.
        """
        self._turn(Turn.GOES_BACK)
        self.epoch += 1
        self.version, self.digests, self.update = version, digests, UNKNOWN_UPDATE
        self.round, self.commit, self.void_rounds = None, None, 0

    def stop(self) -> None:
        """Take note that a stop was asked for; the phase goes on."""
        self.is_stopping = True

    def stop_after_this_step(self) -> None:
        """Make the next version the last. Before: this one is not."""
        assert self.version < self.last_version
        self.last_version = self.version + 1

    def end(self) -> None:
        """End it. Before: any phase. After: CLOSING, and that for good."""
        self._turn(Turn.ENDS)

    def _turn(self, turn: Turn) -> None:
        after = NEXT[self.phase].get(turn)
        assert after is not None, f"a run that is {self.phase} is {turn}"
        self.phase = after
