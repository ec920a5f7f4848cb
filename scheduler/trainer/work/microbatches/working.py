"""A step's microbatches, and all that is done about them.

Rules:
- A step is a fixed set of microbatches; a window bounds those in flight.
- The ledger says who owns each (microbatch, stage). What nobody owns is recovered from retained
  frames, or by another attempt.
- What is remembered of a step's troubles is forgotten when the next one begins.
"""

from __future__ import annotations

from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.failures import Failures
from swarmrt.scheduler.trainer.work.microbatches.claims import Claims
from swarmrt.scheduler.trainer.work.microbatches.feeding import Feeding
from swarmrt.scheduler.trainer.work.microbatches.finishing import Finishing
from swarmrt.scheduler.trainer.work.microbatches.lateness import Lateness
from swarmrt.scheduler.trainer.work.microbatches.recovering import Recovering
from swarmrt.scheduler.trainer.work.microbatches.releases import Releases


class Working:
    def __init__(self, run: Run) -> None:
        self._run, self._failures = run, Failures()
        self.feeding = Feeding(run)
        self.claims = Claims(run)
        self.finishing = Finishing(run, self._failures)
        self.releases = Releases(run, self._failures)
        self.recovering = Recovering(run)
        self.lateness = Lateness(run, self.recovering)

    def begin(self, now: float) -> None:
        """Feed all steps that may be open: all stages are served."""
        self.feeding.begin(now)
        self._forget()

    def next_step(self, now: float) -> None:
        """Open one more step, as another version is here: the step that made it is over."""
        self.feeding.next_step(now)
        self._failures.drop(self._run.version)
        self._forget()

    def _forget(self) -> None:
        """Forget the troubles of the step before."""
        self.claims.forget()
        self.releases.forget()
        self.lateness.forget()

    def go_on(self, now: float) -> list[Instruction]:
        """Fill vacancies, and what the window has room for."""
        run = self._run
        self.finishing.has_landed = False
        work = self.recovering.recover(now) if run.books.has_vacancies else []
        if run.dispatch.has_room and run.phase is not RunPhase.WAITING:
            work_s = run.pace.work_time.mean_s
            work += run.dispatch.fill(run.epoch, run.agenda, now, work_s)
        return work
