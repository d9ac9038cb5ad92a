"""When to stop so that a job never goes over its budget of money or time: by a forecast of its ending.

A decision to stop takes effect in two steps: one more is under way when it is taken, and in the next
everyone flushes. Then the last worker merges, scores the model on all held-out rows (twice, if an earlier
model turns out to be the best) and stores it, while the others exit.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from mlless.billing.meter import Meter

GRACE = 0.5
WRITES = 3  # of a run: model, history, summary
# One step to come is expected to be as slow as the slowest so far, half of which these seconds forget.
_HALF_LIFE = 5.0
_NEWEST = 0.2  # weight of the newest step in what the others are expected to take
# A step, the flush, and the one that is taken if the decision waits until the next one.
_STEPS = 3


@dataclass
class Budget:
    """The most a job may cost, in ``dollars`` by its ``meter``, and its ``deadline``; either may be None.

    ``heldout`` counts the batches held out. ``grace`` are the seconds for what no step has shown yet: for all
    functions to exit, and for storing the model.
    """

    heldout: int
    meter: Meter | None = None
    dollars: float | None = None
    deadline: float | None = None
    grace: float = GRACE
    _closed: float = 0.0
    _slowest: float = 0.0
    _typical: float = 0.0
    _evaluating: float = 0.0
    _scoring: float = 0.0
    _reads: int = 0

    def begin(self, now: float) -> None:
        """Take in that the first step begins."""
        self._closed = now

    def add_step(self, now: float, *, evaluated: bool, scoring: float, reads: int) -> None:
        """Take in that a step is closed.

        ``scoring`` is what its evaluation took all workers together, ``reads`` what it asked of the
        object store.
        """
        seconds = now - self._closed
        keep = 0.5 ** (seconds / _HALF_LIFE)
        if evaluated:
            self._evaluating, self._scoring = seconds, max(scoring, 0.5 * self._scoring)
        else:
            self._slowest = max(seconds, self._slowest * keep)
            self._typical += (seconds - self._typical) * (_NEWEST if self._typical else 1.0)
        self._closed, self._reads = now, reads

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
        bill = self.meter.bill(committed, last=finisher, until=finished)
        reads = _STEPS * self._reads + 3 * self.heldout
        return bill.total + self.meter.requests(reads=reads, writes=WRITES)

    def spent(self, now: float, *, finisher: Hashable, evaluate: bool) -> Literal["cost", "time"] | None:
        """Return what the job is about to run out of, if anything: then it has to end now."""
        if self.dollars is not None and self.cost(now, finisher=finisher, evaluate=evaluate) > self.dollars:
            return "cost"
        if self.deadline is not None and self.ending(now, evaluate=evaluate)[1] > self.deadline:
            return "time"
        return None
