"""When to stop so that a job never goes over its budget of money or time: by a forecast of its ending.

A decision to stop takes effect in two steps: one more is under way when it is taken, and in the next
everyone flushes. Then the last worker merges, scores the model on all held-out rows (twice, if an earlier
model turns out to be the best) and stores it, while the others exit.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from mlless.billing.meter import NOTHING, Meter, Usage

GRACE = 0.5
WRITES = 3  # of a run: model, history, summary
# One step to come is expected to be as slow as the slowest so far, half of which these seconds forget.
_HALF_LIFE = 5.0
_NEWEST = 0.2  # weight of the newest step in what the others are expected to take
# A step, the flush, and the one that is taken if the decision waits until the next one.
_STEPS = 3
# One in a step to come, and two of the finisher.
_EVALUATIONS = 3


@dataclass(frozen=True)
class Scoring:
    """What an evaluation took all workers together: seconds, and what was used."""

    seconds: float
    used: Usage = NOTHING


@dataclass
class Budget:
    """The most a job may cost, in ``dollars`` by its ``meter``, and its ``deadline``; either may be None.

    ``flush`` is the most that everyone's flush uses, which no step shows. Nor does one show the seconds
    of ``grace``: for all functions to exit, and for storing the model.
    """

    meter: Meter | None = None
    dollars: float | None = None
    deadline: float | None = None
    flush: Usage = NOTHING
    grace: float = GRACE
    _closed: float = 0.0
    _slowest: float = 0.0
    _typical: float = 0.0
    _evaluating: float = 0.0
    _scoring: float = 0.0
    _step: Usage = NOTHING
    _evaluation: Usage = NOTHING

    def begin(self, now: float) -> None:
        """Take in that the first step begins."""
        self._closed = now

    def add_step(self, now: float, used: Usage, scoring: Scoring | None = None) -> None:
        """Take in that a step is closed, what was used for it, and for its evaluation if there was one."""
        seconds = now - self._closed
        keep = 0.5 ** (seconds / _HALF_LIFE)
        self._step = used
        if scoring is not None:
            self._evaluating, self._evaluation = seconds, scoring.used
            self._scoring = max(scoring.seconds, 0.5 * self._scoring)
        else:
            self._slowest = max(seconds, self._slowest * keep)
            self._typical += (seconds - self._typical) * (_NEWEST if self._typical else 1.0)
        self._closed = now

    def ending(self, now: float, *, evaluate: bool) -> tuple[float, float]:
        """Return when all functions but one will have ended, and when that one, the finisher, will have.

        That is if the job goes on for another step before it ends. ``evaluate`` says that one of the
        steps to come evaluates.
        """
        slowest = self._slowest or self._evaluating
        typical = self._typical or self._evaluating
        first = max(slowest, self._evaluating) if evaluate else slowest
        committed = now + first + (_STEPS - 1) * typical + self.grace
        return committed, committed + slowest + 2 * self._scoring

    def cost(self, now: float, *, finisher: Hashable, evaluate: bool) -> float:
        """Return what the job will have cost with that ending; ``finisher`` is who writes the model."""
        assert self.meter is not None, "a job without a tariff"
        committed, finished = self.ending(now, evaluate=evaluate)
        more = self.flush.plus(Usage(writes=WRITES))
        more = more.plus(self._step, _STEPS).plus(self._evaluation, _EVALUATIONS)
        return self.meter.bill(committed, last=finisher, until=finished, more=more).total

    def spent(self, now: float, *, finisher: Hashable, evaluate: bool) -> Literal["cost", "time"] | None:
        """Return what the job is about to run out of, if anything: then it has to end now."""
        if self.dollars is not None and self.cost(now, finisher=finisher, evaluate=evaluate) > self.dollars:
            return "cost"
        if self.deadline is not None and self.ending(now, evaluate=evaluate)[1] > self.deadline:
            return "time"
        return None
