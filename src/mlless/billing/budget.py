"""When to stop so that a job never goes over its budget of money or time: by a forecast of its ending.

A decision to stop takes effect in two steps: one more is under way when it is taken, and in the next
everyone flushes. With slack more are under way. Then all merge and score the finished model on their
held-out rows, and one stores it. A step that stalls for longer than any lately cannot be foreseen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from mlless.billing.meter import NOTHING, Meter, Usage

GRACE = 0.5
WRITES = 3  # of a run: model, history, summary
# Stalls recur. So the forecast takes one step to be as slow as the slowest so far. Half of that is forgotten
# after so many seconds and so many steps.
_HALF_LIFE, _HALF_STEPS = 5.0, 200
_NEWEST = 0.2  # weight of the newest step in what the others are expected to take
# The first step and the first evaluation are slow, because nothing is warm. Later ones are expected to take
# this share of their time.
_WARM = 0.5
_LARGE = 0.9  # of the largest update: of those as large, the newest says what a byte takes
# A step, the flush, and the one that is taken if the decision waits until the next one.
_STEPS = 3
_EVALUATIONS = 2  # one in a step to come, and the last


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What an evaluation took: seconds of the slowest worker, and what was used."""

    longest: float
    used: Usage = NOTHING

    def warm(self) -> Scoring:
        """Return what the next one is expected to take, if this was the first: its files have been read."""
        return Scoring(longest=_WARM * self.longest)


@dataclass(frozen=True, kw_only=True)
class StepUse:
    """What a step used, by how many workers, and what moving updates took.

    ``publishing`` and ``merging`` hold the bytes of the mean worker and its seconds. ``length`` is how many
    mini-batches the step had.
    """

    used: Usage = NOTHING
    workers: int = 1
    published: float = 0.0
    publishing: float = 0.0
    read: float = 0.0
    merging: float = 0.0
    scoring: Scoring | None = None
    length: int = 1


@dataclass
class Budget:
    """The most a job may cost, in ``dollars`` by its ``meter``, and its ``deadline``; either may be None.

    ``flush`` is the most bytes that a worker's flush has; all read it, or it is ``merged`` by one for all.
    ``stored`` are the bytes of the model that is stored in the end.
    ``grace`` are the seconds for what no step shows: for all functions to exit, and for storing the model.
    So many steps ``more`` than without slack are under way when a decision is taken.
    """

    meter: Meter | None = None
    dollars: float | None = None
    deadline: float | None = None
    flush: int = 0
    stored: int = 0
    grace: float = GRACE
    merged: bool = False
    more: int = 0
    _closed: float = field(default=0.0, init=False)
    _steps: int = field(default=0, init=False)
    _length: int = field(default=1, init=False)  # of the longest step so far, whose time is what counts
    _slowest: float = field(default=0.0, init=False)
    _typical: float = field(default=0.0, init=False)
    _last: StepUse = field(default_factory=StepUse, init=False)
    _largest: StepUse = field(default_factory=StepUse, init=False)
    _scoring: Scoring = field(default_factory=lambda: Scoring(longest=0.0), init=False)

    def begin(self, now: float) -> None:
        """Take in that the first step begins."""
        self._closed = now

    def add_step(self, now: float, step: StepUse) -> None:
        """Take in that a step is closed."""
        seconds, self._closed = now - self._closed, now
        longer, shorter = step.length > self._length, step.length < self._length
        self._length = max(self._length, step.length)
        self._last = replace(self._last, workers=step.workers) if shorter else step
        if step.scoring is not None:
            seconds = max(seconds - step.scoring.longest, 0.0)
            self._scoring = step.scoring if self._steps else step.scoring.warm()
        if step.published + step.read >= _LARGE * (self._largest.published + self._largest.read):
            self._largest = step
        self._steps += 1
        if self._steps == 1:
            self._slowest = self._typical = _WARM * seconds
        elif self._steps == 2 and not shorter:
            self._slowest = self._typical = seconds
        else:
            keep = 0.5 ** min(seconds / _HALF_LIFE, 1 / _HALF_STEPS)
            self._slowest = max(seconds, self._slowest * keep)
            if longer:
                self._typical = seconds
            elif not shorter:
                self._typical += _NEWEST * (seconds - self._typical)

    def ending(self, now: float, *, evaluate: int, length: int = 1) -> float:
        """Return when all functions will have ended if the job goes on for another step before it ends.

        So many of the steps to come ``evaluate``. The longest of them has so many mini-batches: ``length``.
        """
        large, scoring, stretch = self._largest, self._scoring.longest, self._stretch(length)
        first = stretch * self._slowest + scoring * evaluate
        flushing = large.publishing * self.flush / large.published if large.published else 0.0
        flushed = self.flush * self._last.workers
        merging = max(self._slowest, large.merging * flushed / large.read if large.read else 0.0)
        others = (1 + (_STEPS - 2 + self.more) * stretch) * self._typical  # one of them is the flush
        return now + first + others + flushing + merging + scoring + self.grace

    def _stretch(self, length: int) -> int:
        """Return how many times as much a step of so many mini-batches may take as the longest so far."""
        return max(1, -(-length // self._length))

    def cost(self, now: float, *, evaluate: int, length: int = 1) -> float:
        """Return what the job will have cost with that ending."""
        assert self.meter is not None, "a job without a tariff"
        workers = self._last.workers
        times = 3 * workers - 1 if self.merged else workers**2  # that a flush is written or read
        flushes = Usage(writes=WRITES, exchanged=self.flush * times + self.stored)
        more = flushes.plus(self._last.used, self._stretch(length) * (_STEPS + self.more))
        more = more.plus(self._scoring.used, max(_EVALUATIONS, evaluate + 1))
        return self.meter.bill(self.ending(now, evaluate=evaluate, length=length), more=more).total

    def spent(self, now: float, *, evaluate: int, length: int = 1) -> Literal["cost", "time"] | None:
        """Return what the job is about to run out of, if anything: then it has to end now."""
        if self.dollars is not None and self.cost(now, evaluate=evaluate, length=length) > self.dollars:
            return "cost"
        if self.deadline is not None and self.ending(now, evaluate=evaluate, length=length) > self.deadline:
            return "time"
        return None

    def over(self, now: float) -> Literal["cost", "time"] | None:
        """Return what the job has run out of already, if anything."""
        if self.dollars is not None and self.meter is not None and self.meter.cost(now) > self.dollars:
            return "cost"
        return "time" if self.deadline is not None and now > self.deadline else None
