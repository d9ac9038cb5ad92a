"""PURE: which models a job keeps in its store: the best so far, and the checkpoint to which it can go back.

Members are asked to store one with a commit: one of them, or each its part, where they own rows. They have
done so once all have reported a step for which they had to merge that one, without slack the next: before
that nothing relies on it. If one of them is lost before that, the model before it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlless import keys
from mlless.closing import Verdict
from mlless.instructions import Delete, Forget, Instruction, Kept, Marked
from mlless.keys import model_key
from mlless.mark import Mark, Rhythm
from mlless.messages import FunctionId, Origin, Plan, Report
from mlless.stopping import Score


def keepers_of(
    plan: Plan, following: Plan, at_work: Mapping[int, int], *, owned: bool
) -> tuple[FunctionId, ...]:
    """Return who can store a model as the step of a plan is closed, none if nobody can.

    The lowest of those who stay, or all who own rows: if one of these is lost, so is a part of the model.
    """
    if not owned:
        first = next((one for one in following.members if one in at_work), None)
        return () if first is None else ((first, at_work[first]),)
    if not at_work.keys() >= set(plan.trainers):
        return ()
    return tuple((one, at_work[one]) for one in plan.trainers)


def result_of(plan: Plan, reports: Mapping[int, Report], *, owned: bool) -> tuple[str, ...]:
    """Return the keys of the parts of the model with which a job ends, as its members have reported it."""
    told = [reports[plan.lowest]]
    if owned:
        told += [report for report in reports.values() if report is not told[0]]
    return tuple(model_key(keys.RESULT, plan.step, (one.worker, one.generation)) for one in told)


class Keeping:
    """The models that one job keeps. ``mark`` is to where it can go back: at first its start.

    ``best_key`` is that of the best model of its progress, if that is in the store; ``every`` is that of
    ``Rhythm``.
    """

    def __init__(self, mark: Mark, best_key: str = "", every: float | None = None) -> None:
        self.best: Score | None = mark.progress.best if best_key else None  # that is sure to be in the store
        self.best_keys: tuple[str, ...] = (best_key,) if best_key else ()
        self.mark = mark
        self._keepers: set[FunctionId] = set()  # who has not done yet what it was asked for
        self._next_best: Score | None = None  # what they were asked for,
        self._next_keys: tuple[str, ...] = ()  # under these names
        self._next_mark: Mark | None = None
        self._asked = 0  # with the commit of this step
        self._seconds = 0.0  # that it took the slowest one
        self.rhythm = Rhythm(every)
        self.litter: list[str] = []

    def ask(
        self,
        keepers: tuple[FunctionId, ...],
        plan: Plan,
        ahead: tuple[Plan, ...],
        verdict: Verdict,
        now: float,
        *,
        marks: bool,
    ) -> tuple[tuple[FunctionId, ...], tuple[FunctionId, ...]]:
        """Return who stores the best model, and who a checkpoint, when a step is closed.

        Both are the ``keepers``, who can be asked. ``ahead`` are the plans of the steps to come. ``marks``
        says whether there can be a checkpoint of the next step.
        """
        if self._next_best is not None or self._next_mark is not None:
            return (), ()  # they have not come so far yet, with slack; they have by an evaluation
        following, *later = ahead
        if not keepers:
            return (), ()
        if verdict.best:
            self._next_best = verdict.progress.best
            assert self._next_best is not None, "a best model without a score"
            self._next_keys = tuple(model_key(keys.BEST, self._next_best.step, one) for one in keepers)
        if marks and following.trainers and (verdict.mark or self.rhythm.is_due(plan, now)):
            self.rhythm.make(now)
            key, *parts = (model_key(keys.CHECKPOINT, following.step, one) for one in keepers)
            # Its digest is known once it is made; who starts from it has read it whole.
            origin = Origin(key, following.step, "", tuple(parts))
            self._next_mark = Mark(
                following, later[0] if later else None, origin, verdict.progress, tuple(later[1:])
            )
        asked = bool(self._next_best or self._next_mark)
        self._keepers, self._asked, self._seconds = set(keepers if asked else ()), plan.step, 0.0
        return keepers if self._next_best else (), keepers if self._next_mark else ()

    def hear(self, report: Report, merged: int) -> Iterator[Instruction]:
        """Take in a report of a worker that had ``merged`` steps merged.

        What it was asked for by then is in the store. Once all have stored their parts, these take the place
        of older models.
        """
        who = report.worker, report.generation
        if who not in self._keepers or merged <= self._asked:
            return
        self._keepers.discard(who)
        self._seconds = max(self._seconds, report.times.keep)
        if self._keepers:
            return
        if self._next_best is not None:
            if self.best is not None:
                yield Delete(self.best_keys)
            self.best, self.best_keys = self._next_best, self._next_keys
            yield Kept(self.best, self.best_keys)
        if self._next_mark is not None:
            self.rhythm.made(self._seconds)
            yield Delete(self.mark.keys)
            self.mark = self._next_mark
            yield Marked(self.mark, self._seconds)
        self._next_best = self._next_mark = None

    def pass_on(self, old: FunctionId, new: FunctionId) -> None:
        """Take in that ``old`` hands over: what it was asked for is there once the ``new`` one reports."""
        if old in self._keepers:
            self._keepers = {*self._keepers - {old}, new}

    def lose(self, function: FunctionId) -> Iterator[Instruction]:
        """Take in that a function is lost, and what it was asked for with it.

        What of that is in the store, or will be once the others have done their part, is left in ``litter``.
        """
        if function not in self._keepers:
            return
        if self._next_best is not None:
            yield Forget(self.best)
            self.litter += self._next_keys
        if self._next_mark is not None:
            self.litter += self._next_mark.keys
        self._keepers, self._next_best, self._next_mark = set(), None, None

    def take_litter(self) -> tuple[int, list[str]]:
        """Return keys that nobody needs once all have merged a step, and which that is."""
        litter, self.litter = self.litter, []
        return self._asked, litter
