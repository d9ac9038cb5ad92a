"""What is known of a job while it goes on, and what is told of it in lines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from mlless.billing.amount import money
from mlless.job import JobSpec
from mlless.records import StepRecord
from mlless.report.account import thing_of
from mlless.report.history import Totals
from mlless.report.wording import duration, metrics


class Course:
    """What is known of a job so far."""

    def __init__(self, spec: JobSpec, elapsed: float = 0.0) -> None:
        self.spec = spec
        self.thing = thing_of(spec)
        self.started = time.monotonic() - elapsed
        self.totals = Totals()
        self.steps = self.samples = 0
        self.last: StepRecord | None = None
        self.heldout: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.best_epoch = 0.0
        self.evaluated_at = 0.0
        self._epoch = 0.0

    def add(self, record: StepRecord) -> bool:
        """Take in a step; return whether the model was evaluated before it."""
        epoch, self._epoch = self._epoch, record.epoch
        self.last = record
        self.steps += 1
        self.samples += record.samples
        self.totals.add(record)
        if record.heldout is None:
            return False
        self.heldout, self.evaluated_at = record.heldout, epoch
        if record.heldout and (not self.best or main(record.heldout) < main(self.best)):
            self.best, self.best_epoch = record.heldout, epoch
        return True

    @property
    def training(self) -> str:
        """The smoothed training loss, by the metric that held-out rows are scored by."""
        loss = self.last.train_loss if self.last else None
        return f"{self.spec.metrics[0]} {'-' if loss is None else f'{self.spec.on_scale(loss):.4f}'}"

    @property
    def phase(self) -> str:
        """``starting``, ``training`` or ``finishing``."""
        if self.last is None:
            return "starting"
        return "training" if self.last.loss is not None else "finishing"

    @property
    def fraction(self) -> float:
        """The share that is done of the epochs, or of time or budget if that ends sooner."""
        if self.last is None:
            return 0.0
        stop = self.spec.stop
        by_time = self.last.time / stop.max_time if stop.max_time else 0.0
        by_cost = (self.last.cost or 0.0) / stop.max_cost if stop.max_cost else 0.0
        return min(max(self.last.epoch / stop.epochs, by_time, by_cost), 1.0)


def main(heldout: dict[str, float]) -> float:
    """Return the metric that picks the best model: the first; less is better."""
    return next(iter(heldout.values()))


def events(record: StepRecord) -> Iterator[str]:
    """Yield a line for whatever has happened beside the training: losses, and workers that are to leave."""
    start = f"step {record.step:6d}  "
    for loss in record.losses:
        yield f"{start}{loss}"
    if record.rewound_to is not None:
        yield f"{start}back to this step"
    decision = record.decision
    if decision is not None and decision.workers:
        who = ", ".join(map(str, decision.workers))
        thing = "worker" if len(decision.workers) == 1 else "workers"
        yield f"{start}{thing} {who} of {record.workers} to leave: {decision.why}"


def evaluated(course: Course, record: StepRecord) -> str:
    """Return the line of an evaluation."""
    start = f"epoch {course.evaluated_at:5.1f}  step {record.step:6d}  train {course.training}"
    spent = duration(record.time) + (f"  {money(record.cost)}" if record.cost is not None else "")
    if not record.heldout:
        return f"{start}  {spent}"
    mark = "  best" if course.best is record.heldout else ""
    return f"{start}  held-out {metrics(record.heldout)}  {spent}{mark}"


def lines(course: Course, record: StepRecord) -> Iterator[str]:
    """Take in a step; yield what is to be told of it: an evaluation, and whatever else has happened."""
    if course.add(record):
        yield evaluated(course, record)
    yield from events(record)


def course_of(spec: JobSpec, elapsed: float, earlier: Iterable[StepRecord]) -> Course:
    """Return the course of a job that has run for so many seconds, its steps being those of ``earlier``."""
    course = Course(spec, elapsed)
    for record in earlier:
        course.add(record)
    return course
