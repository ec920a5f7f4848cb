"""The steps that are worked on: which are open, and when the next one is.

Rules:
- With a staleness of 1, a step runs on the version before its own, so that the next step is open
  while this one is reduced. The first ones may be fresh: each waits for its version.
- Evaluations of a version run beside the next step.
"""

from __future__ import annotations

from swarmrt.scheduler.trainer.evaluation import Evaluation
from swarmrt.scheduler.trainer.run import Run


class Feeding:
    def __init__(self, run: Run) -> None:
        self._run = run

    def begin(self, now: float) -> None:
        """Feed all steps that may be open, an evaluation first: all stages are served."""
        run = self._run
        if not run.has_begun:
            run.evaluation = self._new_evaluation()
        run.serve()
        run.begin_books()
        run.dispatch.clear()
        *older, newest = self._open_steps()
        for step in older:
            self._feed(step)
        self._open_newest([newest], now)

    def next_step(self, now: float) -> None:
        """Open one more step, as another version is here: the step that made it is over."""
        run = self._run
        run.books.close(run.version - 1)
        run.dispatch.drop(run.version - 1)
        run.receipts.drop(run.version - 1)
        new = [step for step in self._open_steps() if step not in run.books.steps]
        if run.version in new:
            run.books.open(run.version)
        run.evaluation = self._new_evaluation()
        self._open_newest(new, now)

    def _open_steps(self) -> list[int]:
        """Return the steps that may be worked on at this version."""
        version, settings = self._run.version, self._run.settings
        is_next_stale = settings.staleness and version + 1 >= settings.fresh_steps
        return [version, version + 1] if is_next_stale else [version]

    def _open_newest(self, steps: list[int], now: float) -> None:
        run = self._run
        run.pace.begin_step()
        run.pace.step_began_at = now
        run.dispatch.open(run.evaluation.pending())
        for step in steps:
            self._feed(step)

    def _feed(self, step: int) -> None:
        """Give a step's microbatches to be sent, as the window allows."""
        if step < self._run.last_version:
            self._run.dispatch.open(self._run.books.open(step))

    def _new_evaluation(self) -> Evaluation:
        """Return the evaluation of this version: every so often, and of the last one."""
        run = self._run
        every = run.settings.eval_every
        is_due = every > 0 and run.has_begun and run.version % every == 0
        if (run.is_last_version and not run.is_stopping) or (is_due and not run.is_last_version):
            return Evaluation(run.version, run.settings.eval_microbatches)
        return Evaluation(run.version, 0)

    def stop_after_this_step(self) -> None:
        """Drop the steps after this one, which are not worked on any more."""
        run = self._run
        run.stop_after_this_step()
        for step in run.books.steps[1:]:
            run.books.close(step)
            run.dispatch.drop(step)
            run.receipts.drop(step)
