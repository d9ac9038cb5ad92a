"""PURE: which models a job keeps in its store: the best so far, and the checkpoint to which it can go back.

A member is asked to store one with a commit. It has done so once it has reported a step for which it had to
merge that one, without slack the next: before that nothing relies on it.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlless import keys
from mlless.closing import Verdict
from mlless.instructions import Delete, Forget, Instruction, Kept, Marked
from mlless.keys import model_key
from mlless.mark import Mark, Rhythm
from mlless.messages import FunctionId, Origin, Plan, Report
from mlless.stopping import Score


class Keeping:
    """The models that one job keeps. ``mark`` is to where it can go back: at first its start.

    ``best_key`` is that of the best model of its progress, if that is in the store; ``every`` is that of
    ``Rhythm``.
    """

    def __init__(self, mark: Mark, best_key: str = "", every: float | None = None) -> None:
        self.best: Score | None = mark.progress.best if best_key else None  # that is sure to be in the store
        self.best_key = best_key
        self.mark = mark
        self._keeper: FunctionId | None = None
        self._next_best: Score | None = None  # what the keeper was asked for,
        self._next_key = ""  # under this name
        self._next_mark: Mark | None = None
        self._asked = 0  # with the commit of this step
        self.rhythm = Rhythm(every)

    def ask(
        self,
        keeper: FunctionId | None,
        plan: Plan,
        ahead: tuple[Plan, ...],
        verdict: Verdict,
        now: float,
    ) -> tuple[FunctionId | None, FunctionId | None]:
        """Return who is to store the best model, and who a checkpoint, as a step is closed.

        The ``keeper``, who can be asked, is the same for both; ``ahead`` are the plans of the steps to come.
        """
        if self._next_best is not None or self._next_mark is not None:
            return None, None  # it has not come so far yet, with slack; it has by an evaluation
        following, *later = ahead
        self._keeper, self._asked = keeper, plan.step
        if keeper is None:
            return None, None
        if verdict.best:
            self._next_best = verdict.progress.best
            assert self._next_best is not None, "a best model without a score"
            self._next_key = model_key(keys.BEST, self._next_best.step, keeper)
        if following.trainers and (verdict.mark or self.rhythm.is_due(plan, now)):
            self.rhythm.make(now)
            key = model_key(keys.CHECKPOINT, following.step, keeper)
            # Its digest is known once it is made; who starts from it has read it whole.
            origin = Origin(key, following.step, "")
            self._next_mark = Mark(
                following, later[0] if later else None, origin, verdict.progress, tuple(later[1:])
            )
        return keeper if self._next_best else None, keeper if self._next_mark else None

    def hear(self, report: Report, merged: int) -> Iterator[Instruction]:
        """Take in a report of a worker that had so many steps merged.

        What it was asked for by then is in the store, and takes the place of older.
        """
        if self._keeper != (report.worker, report.generation) or merged <= self._asked:
            return
        if self._next_best is not None:
            if self.best is not None:
                yield Delete((self.best_key,))
            self.best, self.best_key = self._next_best, self._next_key
            yield Kept(self.best, self.best_key)
        if self._next_mark is not None:
            self.rhythm.made(report.times.keep)
            yield Delete((self.mark.origin.key,))
            self.mark = self._next_mark
            yield Marked(self.mark, report.times.keep)
        self._keeper = self._next_best = self._next_mark = None

    def pass_on(self, old: FunctionId, new: FunctionId) -> None:
        """Take in that ``old`` hands over: what it was asked for is there once the ``new`` one reports."""
        if self._keeper == old:
            self._keeper = new

    def lose(self, function: FunctionId) -> Iterator[Instruction]:
        """Take in that a function is lost, and what it was asked for with it."""
        if self._keeper != function:
            return
        wanted = []  # and may be in the store
        if self._next_best is not None:
            yield Forget(self.best)
            wanted.append(self._next_key)
        if self._next_mark is not None:
            wanted.append(self._next_mark.origin.key)
        if wanted:
            yield Delete(tuple(wanted))
        self._keeper = self._next_best = self._next_mark = None
