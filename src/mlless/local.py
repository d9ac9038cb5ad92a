"""One replica and no peers: the training of one worker in the process that asks for it.

The same arithmetic, plans, filter and stopping as a job with one worker, without its messages: the
same spec and data set give the same model, bit for bit. What is more, a training can go on from
where another has ended: step count, optimizer state and tables are kept, and the tables may grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from mlless.billing.budget import Budget, Scoring, StepUse
from mlless.clock import Clock
from mlless.data.dataset import Dataset
from mlless.data.stream import BatchStream
from mlless.errors import NotFinite
from mlless.exchange.codec import pack
from mlless.exchange.filter import SignificanceFilter
from mlless.exchange.update import Update, entries
from mlless.heldout import score_heldout
from mlless.job import Adagrad, Factorization, JobSpec, Logistic
from mlless.kernels.arrays import Floats
from mlless.membership import next_plan
from mlless.messages import Plan
from mlless.models import model_of
from mlless.records import StepRecord, StepTimes
from mlless.replica import Replica
from mlless.stopping import Progress

_STILL = 1e-30  # a learning rate that fills the optimizer's state and moves nothing

Listener = Callable[[StepRecord], bool | None]


@dataclass
class Course:
    """Where a training stands: the steps it has taken, and its replica with the optimizer's state.

    ``remembers`` is False where the state has been lost, as in a model read from a file.
    """

    step: int
    replica: Replica
    remembers: bool = True


@dataclass(frozen=True)
class Ending:
    """How a training ended; the names are those of ``records.Summary``."""

    stop_reason: str
    epochs: float
    train_loss: float | None
    heldout: dict[str, float]
    model_step: int
    restored: bool


def begin(spec: Factorization | Logistic, seed: int) -> Course:
    """Return the start of a training: x_0, made from the seed as a driver makes it."""
    model = model_of(spec)
    replica = Replica(model.shapes)
    replica.restore(model.initial(np.random.Generator(np.random.PCG64(seed))))
    return Course(0, replica)


def resume(spec: Factorization | Logistic, step: int, tables: dict[str, Floats]) -> Course:
    """Return the course of a model of which only the tables are known."""
    replica = Replica(model_of(spec).shapes)
    replica.restore(tables)
    return Course(step, replica, remembers=False)


def grow(course: Course, spec: Factorization | Logistic, seed: int) -> Course:
    """Return the course with the tables of ``spec``, whose further rows start as new ones do."""
    model = model_of(spec)
    if model.shapes == course.replica.shapes:
        return course
    replica = Replica(model.shapes)
    replica.restore(model.initial(np.random.Generator(np.random.PCG64([seed, course.step]))))
    for table, before in zip(replica.tables, course.replica.tables, strict=True):
        table.rows.data[: before.shape.rows] = before.rows.data
    return Course(course.step, replica, course.remembers)


def train_here(
    spec: JobSpec, dataset: Dataset, course: Course, *, clock: Clock, listen: Listener = lambda record: None
) -> Ending:
    """Train ``course`` on; its replica then holds the result, with no residual left.

    ``listen`` hears of every step and may return True to end the training in order.
    """
    if not course.remembers:
        recall(spec, dataset, course)
    return _Training(spec, dataset, course, clock, listen).run()


def recall(spec: JobSpec, dataset: Dataset, course: Course) -> None:
    """Give a course without memory an optimizer state: that of one epoch in which nothing moves.

    Adagrad's first steps would be as long as the learning rate otherwise, whatever the model has
    learnt before.
    """
    course.remembers = True
    if not isinstance(spec.optimizer, Adagrad):
        return
    still = msgspec.structs.replace(spec.optimizer, learning_rate=_STILL)
    model, keep = model_of(spec.model), SignificanceFilter(spec.sync, course.replica)
    for file in dataset.manifest.train:
        batch = dataset.read(file)
        publish = keep.prepare(course.step, batch.touched)._replace(threshold=np.inf)
        model.step(course.replica, batch.arrays, still, course.step, 1, publish)
    for table in course.replica.tables:
        table.residual[:] = 0


class _Training:
    """One run from a course's present step to its end."""

    def __init__(
        self, spec: JobSpec, dataset: Dataset, course: Course, clock: Clock, listen: Listener
    ) -> None:
        self._spec, self._dataset, self._course, self._clock = spec, dataset, course, clock
        self._listen = listen
        self._model = model_of(spec.model)
        self._filter = SignificanceFilter(spec.sync, course.replica)
        self._stream = BatchStream(dataset, spec)
        self._progress = Progress(spec.stop)
        self._best: dict[str, Floats] = {}
        self._reason: str | None = None
        self._start = clock.now()
        # No function has to exit, and no model to be stored.
        self._budget = Budget(deadline=self._start + (spec.stop.max_time or math.inf), grace=0.0)
        self._budget.begin(self._start)

    def run(self) -> Ending:
        """Take step after step until the one in which all of the residual is flushed."""
        plan: Plan = Plan(step=self._course.step, members=(0,), position=0, evaluate=True)
        following = self._after(plan)
        while True:
            before = self._clock.now()
            heldout = self._evaluate(plan.step) if plan.evaluate else None
            seconds = self._clock.now() - before
            record, update = self._step(plan, heldout)
            scoring = Scoring(seconds=seconds, longest=seconds) if plan.evaluate else None
            self._budget.add_step(self._clock.now(), StepUse(scoring=scoring))
            later = self._decide(plan, following, record, update)
            self._course.step = plan.step + 1
            if self._reason == "diverged":
                return self._finish(record, merged=False)
            assert update is not None
            self._merge(update)
            if following is None:
                return self._finish(record, merged=True)
            plan, following = following, later

    def _after(self, plan: Plan | None) -> Plan | None:
        if plan is None:
            return None
        spec = self._spec
        end = self._reason is not None
        return next_plan(plan, batches=spec.batches, epochs=spec.stop.epochs, end=end)

    def _evaluate(self, step: int) -> dict[str, float]:
        sums, _, _ = score_heldout(self._model, self._course.replica, self._dataset, self._clock)
        heldout = self._model.metrics(sums)
        if self._progress.add_evaluation(step, heldout):
            self._best = self._course.replica.snapshot()
        return heldout

    def _step(self, plan: Plan, heldout: dict[str, float] | None) -> tuple[StepRecord, Update | None]:
        """Take the step, up to what it publishes: None if a parameter is no longer a finite number."""
        spec, replica = self._spec, self._course.replica
        update: Update | None = None
        samples, loss, start = 0, None, self._clock.now()
        try:
            if plan.flush:
                self._model.settle(replica, spec.optimizer, plan.step - 1)
                update = self._filter.flush()
            else:
                batch = self._stream.take(plan.position).batch
                publish = self._filter.prepare(plan.step, batch.touched)
                total, sent = self._model.step(replica, batch.arrays, spec.optimizer, plan.step, 1, publish)
                samples, loss = len(batch), total / len(batch)
                update = self._filter.take(publish, sent)
        except NotFinite:
            update = None
        if loss is not None:
            self._progress.add_step(loss)
        now = self._clock.now()
        return StepRecord(
            step=plan.step,
            epoch=min((plan.position + len(plan.trainers)) / spec.batches, spec.stop.epochs),
            time=now - self._start,
            loss=loss,
            train_loss=self._progress.train_loss,
            heldout=heldout,
            workers=1,
            samples=samples,
            entries=entries(update or ()),
            bytes_out=0,
            bytes_in=0,
            bytes_fetched=0,
            times=StepTimes(0.0, now - start, 0.0, 0.0, 0.0, 0.0, 0.0),
        ), update

    def _decide(
        self, plan: Plan, following: Plan | None, record: StepRecord, update: Update | None
    ) -> Plan | None:
        """Return the plan of the step after the following one: decisions take effect there, as in a job."""
        if self._listen(record):
            self._reason = self._reason or "callback"
        if self._progress.diverged(finite=update is not None):
            self._reason = "diverged"
        elif record.loss is not None:
            evaluate = any(one is not None and one.evaluate for one in (following, self._after(following)))
            spent = self._budget.spent(self._clock.now(), finisher=0, evaluate=evaluate)
            self._reason = self._reason or self._progress.reason(evaluated=plan.evaluate, spent=spent)
        return self._after(following)

    def _merge(self, update: Update) -> None:
        self._course.replica.merge({"own": pack(update, "none")}, self._spec.sync.merge, 1)

    def _finish(self, last: StepRecord, *, merged: bool) -> Ending:
        """Leave the better of the model as it is now and the best one."""
        heldout = self._exact() if merged else {}
        value = next(iter(heldout.values()), None)
        best = self._progress.best
        restored = best is not None and (not merged or (value is not None and best.value < value))
        step = last.step + 1
        if restored and best is not None:
            self._course.replica.restore(self._best)
            heldout, step = self._exact(), best.step
        if not merged:  # what led astray is forgotten
            for table in self._course.replica.tables:
                table.state[:] = 0
            self._course.remembers = False
        reason = self._reason or "epochs"
        return Ending(reason, last.epoch, self._progress.train_loss, heldout, step, restored)

    def _exact(self) -> dict[str, float]:
        scored = score_heldout(self._model, self._course.replica, self._dataset, self._clock)
        return self._model.exact(*scored)
