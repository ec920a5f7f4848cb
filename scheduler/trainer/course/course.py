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
    def __init__(self, settings: TrainerSettings) -> None:
        self._phase = RunPhase.HAILING if settings.resume else RunPhase.WAITING
        self._epoch, self._version = settings.epoch, settings.start_version
        self._digests = settings.start_digests or ("",) * len(settings.needed)
        self._update = UNKNOWN_UPDATE
        self._round: PrepareRound | None = None
        self._commit: Commit | None = None
        self._void_rounds = 0
        self._last_version = settings.steps
        self._has_begun = self._is_stopping = False

    # ------------------------------------------------------------------ where it is

    @property
    def phase(self) -> RunPhase:
        return self._phase

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def version(self) -> int:
        """Return the version that is the newest. The next to be committed is the step of that
        number."""
        return self._version

    @property
    def current(self) -> tuple[int, int]:
        """Epoch and step of what is next to be committed."""
        return self._epoch, self._version

    @property
    def digests(self) -> tuple[str, ...]:
        """Return those of the version's parameters, by stage; empty where not known."""
        return self._digests

    @property
    def update(self) -> tuple[int, float]:
        """Return the round and norm of the one that made this version; -1 if not known."""
        return self._update

    @property
    def round(self) -> PrepareRound | None:
        """Return the round that is under way."""
        return self._round

    @property
    def commit(self) -> Commit | None:
        """Return the commit of this version, until all have applied it."""
        return self._commit

    @property
    def void_rounds(self) -> int:
        """Return how many rounds of this step were void."""
        return self._void_rounds

    @property
    def last_version(self) -> int:
        return self._last_version

    @property
    def is_last_version(self) -> bool:
        return self._version == self._last_version

    @property
    def has_begun(self) -> bool:
        """Return whether this incarnation has trained."""
        return self._has_begun

    @property
    def is_stopping(self) -> bool:
        """Return whether a stop was asked for."""
        return self._is_stopping

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
        self._version, self._update, self._digests = version, update, digests
        self._void_rounds = 0

    def serve(self) -> None:
        """Begin to train, as every stage is served.

        Before: WAITING, without a round or a commit. After: TRAINING, at the same version.
        """
        assert self._round is None and self._commit is None
        self._turn(Turn.SERVED)
        self._has_begun, self._void_rounds = True, 0

    def prepare(self, round_: PrepareRound) -> None:
        """Begin a round.

        Before: TRAINING, and all have applied this version. After: PREPARING.
        """
        assert self._round is None and self._commit is None
        self._turn(Turn.PREPARES)
        self._round = round_

    def void(self) -> None:
        """Give the round up: its step goes on.

        Before: PREPARING. After: TRAINING, at the same version.
        """
        self._turn(Turn.VOID)
        self._round = None
        self._void_rounds += 1

    def announce(self, commit: Commit, update: tuple[int, float]) -> None:
        """Make the version that a round has prepared the newest.

        Before: PREPARING. After: TRAINING, at the next version, which nobody has applied, and of
        which no digest is known.
        """
        assert commit.version == self._version + 1
        self._turn(Turn.ANNOUNCED)
        self._version, self._update = commit.version, update
        self._digests = ("",) * len(self._digests)
        self._round, self._commit, self._void_rounds = None, commit, 0

    def committed(self, digests: tuple[str, ...]) -> None:
        """End the commit.

        Before: one is under way, in any phase. After: none is, and the digests are known.
        """
        assert self._commit is not None
        self._commit, self._digests = None, digests

    def go_back(self, version: int, digests: tuple[str, ...]) -> None:
        """Go back to the checkpoint's version.

        Before: WAITING or TRAINING. After: WAITING, in a new epoch, with nothing under way.
        """
        self._turn(Turn.GOES_BACK)
        self._epoch += 1
        self._version, self._digests, self._update = version, digests, UNKNOWN_UPDATE
        self._round, self._commit, self._void_rounds = None, None, 0

    def stop(self) -> None:
        """Take note that a stop was asked for; the phase goes on."""
        self._is_stopping = True

    def stop_after_this_step(self) -> None:
        """Make the next version the last. Before: this one is not."""
        assert self._version < self._last_version
        self._last_version = self._version + 1

    def end(self) -> None:
        """End it. Before: any phase. After: CLOSING, and that for good."""
        self._turn(Turn.ENDS)

    def _turn(self, turn: Turn) -> None:
        after = NEXT[self._phase].get(turn)
        assert after is not None, f"a run that is {self._phase} is {turn}"
        self._phase = after
