"""PURE: what a job has used, what that costs, and whether its budgets last, as its supervisor sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mlless.billing.amount import money
from mlless.billing.budget import GRACE, WRITES, Budget, Scoring, StepUse
from mlless.billing.meter import Meter, Usage
from mlless.errors import JobError
from mlless.job import JobSpec
from mlless.messages import Plan, Report


class Costing:
    """The books of one job; nothing costs anything without a ``meter``.

    ``parameters`` is how many the model has, ``owned`` how many of them are in no flush. ``grace`` are the
    seconds for what no step shows. Raises UsageError for a budget below the minimum charge.
    """

    def __init__(
        self, spec: JobSpec, meter: Meter | None, *, parameters: int, owned: int = 0, grace: float = GRACE
    ) -> None:
        stop = spec.stop
        if meter is not None and stop.max_cost is not None:
            # Everyone reads the manifest, and each group has a file to train on and one to score.
            reads = spec.workers + spec.groups * (2 if spec.held_out else 1)
            used = Usage(reads=reads, writes=WRITES)
            meter.check_budget(stop.max_cost, spec.workers, used, seconds=GRACE)
        # Four bytes a value; a mask of bits and row numbers are within a fifth of that.
        merged = spec.shards > 0
        self._budget = Budget(
            meter,
            stop.max_cost,
            flush=5 * (parameters - owned),
            stored=4 * parameters,
            grace=grace,
            merged=merged,
            more=spec.ahead,
        )
        self._spec, self._meter, self._start = spec, meter, 0.0
        self._cold = True

    @property
    def limited(self) -> bool:
        """Whether there is a budget of money or of time."""
        return self._budget.dollars is not None or self._budget.deadline is not None

    def open(self, now: float) -> None:
        """Take in that functions have started: from now on time counts, that of the first step, too."""
        self._start = now
        self._budget.begin(now)
        if self._spec.stop.max_time is not None:
            self._budget.deadline = now + self._spec.stop.max_time

    def begin(self, now: float) -> None:
        """Take in that all workers are there, each of which has read the data set's manifest."""
        self._use(Usage(reads=self._spec.workers))
        self._budget.begin(now)

    def check_start(self, now: float) -> None:
        """Raise JobError if the job has run out of a budget before it has trained anything."""
        stop = self._spec.stop
        match self._budget.over(now):
            case "cost" if self._meter is not None:
                spent = f"{money(self._meter.cost(now))} for {now - self._start:.1f} s of start-up"
                raise _too_late("budget", f"at most {money(stop.max_cost or 0.0)}", spent, "--max-cost")
            case "time":
                spent = f"{now - self._start:.1f} s of start-up"
                raise _too_late("time", f"at most {stop.max_time:g} s", spent, "--max-time")

    def add_step(self, plan: Plan, reports: Sequence[Report], now: float) -> float | None:
        """Take in a closed step; return the dollars that the job has cost so far, None without a meter."""
        if self._meter is None and self._budget.deadline is None:
            return None
        out, read = sum(one.bytes_out for one in reports), sum(one.bytes_in for one in reports)
        used = Usage(
            reads=sum(one.reads for one in reports),
            fetched=sum(one.bytes_fetched for one in reports),
            exchanged=out + read + sum(one.bytes_kept for one in reports),
        )
        scoring = _scoring(reports) if plan.evaluate else None
        # Groups are read in the first step and then kept: what it read tells nothing of further steps.
        again = (
            Usage(used.reads, used.writes, used.fetched, out + read)
            if not self._cold
            else Usage(exchanged=out + read)
        )
        self._cold = False
        workers = len(reports)
        step = StepUse(
            used=again,
            workers=workers,
            published=out / workers,
            publishing=sum(one.times.publish for one in reports) / workers,
            read=read / workers,
            merging=sum(one.times.merge for one in reports) / workers,
            scoring=scoring,
            length=plan.length if plan.trainers else 1,
        )
        self._budget.add_step(now, step)
        self._use(used if scoring is None else used.plus(scoring.used))
        return None if self._meter is None else self._meter.cost(now)

    def late(self, now: float) -> bool:
        """Return whether the time is over, but for what it takes to end at once."""
        deadline = self._budget.deadline
        return deadline is not None and now > deadline - GRACE

    def spent(self, now: float, ahead: Sequence[Plan]) -> Literal["cost", "time"] | None:
        """Return which budget allows for no step beyond those ``ahead``, if any."""
        evaluate = min(sum(one.evaluate for one in ahead), 1 + self._spec.ahead)
        return self._budget.spent(now, evaluate=evaluate, length=max(one.length for one in ahead))

    def _use(self, usage: Usage) -> None:
        if self._meter is not None:
            self._meter.use(usage)


def _scoring(reports: Sequence[Report]) -> Scoring:
    evaluations = [one.evaluation for one in reports if one.evaluation]
    used = Usage(reads=sum(one.reads for one in evaluations), fetched=sum(one.bytes for one in evaluations))
    return Scoring(longest=max(one.times.evaluate for one in reports), used=used)


def _too_late(what: str, expected: str, found: str, option: str) -> JobError:
    return JobError(
        f"the {what} was used up before the first step was over",
        expected=expected,
        found=found,
        cure=f"raise {option}",
    )
