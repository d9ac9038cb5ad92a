"""One replica and no peers: the training of one worker in the process that asks for it.

The same steps, plans and stopping as a job with one worker, without its messages: the same spec and
data set give the same model, bit for bit. What is more, a training can go on from where another has
ended: step count, optimizer state and tables are kept, and the tables may grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlless.billing.budget import Budget, Scoring, StepUse
from mlless.clock import Clock
from mlless.data.dataset import Dataset
from mlless.data.groups import RatingsGroup
from mlless.data.holding import Holding
from mlless.exchange.filter import SignificanceFilter
from mlless.job import Adagrad, Factorization, JobSpec, Logistic, Sync
from mlless.kernels.arrays import Floats
from mlless.membership import Schedule
from mlless.messages import Plan
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.records import StepRecord, StepTimes
from mlless.replica import Replica, Undo
from mlless.stepping import Laps, Stepper, Taken
from mlless.stopping import Choice, Progress, finite

_STILL = 1e-30  # a learning rate that fills the optimizer's state and moves nothing

Listener = Callable[[StepRecord], object]
Keeper = Callable[[int, dict[str, float], Callable[[], dict[str, Floats]]], None]


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
    """How a training ended, and with which ``model``; the other names are those of ``records.Summary``."""

    stop_reason: str
    last: StepRecord
    model: Choice


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
    for table in replica.tables:
        table.last[:] = step - 1  # whatever pulls at a row in every step has done so until now
    return Course(step, replica, remembers=False)


def grow(course: Course, spec: Factorization | Logistic, seed: int) -> Course:
    """Return the course with the tables of ``spec``, whose further rows start as new ones do."""
    replica = course.replica
    further = {
        shape.name: shape.rows - table.shape.rows
        for shape, table in zip(model_of(spec).shapes, replica.tables, strict=True)
    }
    if any(further.values()):
        generator = np.random.Generator(np.random.PCG64([seed, course.step]))
        replica.grow(model_of(spec).initial(generator, further), last=course.step - 1)
    return course


def train_here(
    spec: JobSpec,
    dataset: Dataset,
    course: Course,
    *,
    clock: Clock,
    listen: Listener = lambda record: None,
    stop: Callable[[], str | None] = lambda: None,
    kept: Keeper = lambda step, heldout, read: None,
) -> Ending:
    """Train ``course`` on; its replica then holds the result, with no residual left.

    ``listen`` hears of every step and may return True to end the training in order; so does a reason
    that ``stop`` gives. ``kept`` hears of every best model so far: its step, its held-out metrics, and
    what gives its tables in any thread. Where a training that goes on diverges, its start is kept.
    """
    holding = Holding(dataset, spec.seed)
    if not course.remembers:
        recall(spec, holding, course)
    return _Training(spec, dataset, holding, course, clock, listen, stop, kept).run()


def recall(spec: JobSpec, holding: Holding, course: Course) -> None:
    """Give a course without memory an optimizer state: that of one epoch in which nothing moves.

    Adagrad's first steps would be as long as the learning rate otherwise, whatever the model has
    learnt before.
    """
    course.remembers = True
    if not isinstance(spec.optimizer, Adagrad):
        return
    still = msgspec.structs.replace(spec.optimizer, learning_rate=_STILL)
    silent = Sync(significance=0.0, half=False, merge="sum")
    model, keep = model_of(spec.model), SignificanceFilter(silent, course.replica)
    moment = Moment(course.step, 0, 1)
    holding.own(tuple(range(spec.groups)))
    for part in range(spec.batches):
        batch = holding.batch(0, spec.batches, part)
        if batch is None:  # a tiny mini-batch may have no row
            continue
        publish = keep.prepare(course.step, batch.touched)._replace(threshold=np.inf)
        model.step(course.replica, batch, still, moment, publish)
    for table in course.replica.tables:
        table.residual[:] = 0


class _Training:
    """One run from a course's present step to its end."""

    def __init__(
        self,
        spec: JobSpec,
        dataset: Dataset,
        holding: Holding,
        course: Course,
        clock: Clock,
        listen: Listener,
        stop: Callable[[], str | None],
        kept: Keeper,
    ) -> None:
        self._spec, self._course, self._clock, self._listen, self._stop = spec, course, clock, listen, stop
        self._kept = kept
        self._model, self._laps = model_of(spec.model), Laps(clock)
        self._stepper = Stepper(spec, holding, course.replica, clock, self._laps)
        self._schedule = Schedule(
            [file.rows for file in dataset.manifest.train], spec.batch_size, spec.stop.epochs
        )
        self._progress = Progress(spec.stop, self._model.null_loss)
        self._best = Undo(course.replica, _moved_rows(dataset, course.replica))
        self._reason: str | None = None
        self._start = clock.now()
        # No function has to exit, and no model to be stored.
        self._budget = Budget(deadline=self._start + (spec.stop.max_time or math.inf), grace=0.0)
        self._budget.begin(self._start)

    def run(self) -> Ending:
        """Take step after step until the one in which the finished model is scored."""
        plan = msgspec.structs.replace(self._schedule.first(1), step=self._course.step)
        following = self._schedule.after(plan)
        self._laps.restart()
        while True:
            self._stepper.begin(plan, 0)
            before = self._clock.now()
            heldout = self._model.metrics(self._stepper.evaluate()) if plan.evaluate else None
            scoring = Scoring(longest=self._clock.now() - before) if plan.evaluate else None
            if heldout is not None and not plan.last and self._progress.add_evaluation(plan.step, heldout):
                self._kept(plan.step, finite(heldout), self._best.keep())
            self._laps.lap("evaluate")
            taken = self._stepper.flush(plan) if plan.flush else self._stepper.train(plan, 0)
            record = self._close(plan, taken, heldout)
            self._budget.add_step(self._clock.now(), StepUse(scoring=scoring))
            later = self._decide(plan, following, record, taken)
            if not plan.last:
                self._course.step = plan.step + 1
            if self._reason == "diverged" or following is None:
                return self._finish(record, heldout)
            plan, following = following, later

    def _close(self, plan: Plan, taken: Taken, heldout: dict[str, float] | None) -> StepRecord:
        loss = taken.loss / taken.samples if taken.samples else None
        training, scoring = self._stepper.take_reads()
        if loss is not None:
            self._progress.add_step(loss)
        return StepRecord(
            step=plan.step,
            epoch=plan.done,
            time=self._clock.now() - self._start,
            loss=loss,
            train_loss=self._progress.train_loss,
            heldout=None if heldout is None else finite(heldout),
            workers=1,
            samples=taken.samples,
            entries=0,
            bytes_out=0,
            bytes_in=0,
            bytes_fetched=training.bytes + scoring.bytes,
            times=StepTimes(*msgspec.structs.astuple(self._laps.take())),
        )

    def _decide(self, plan: Plan, following: Plan | None, record: StepRecord, taken: Taken) -> Plan | None:
        """Return the plan of the step after the following one: decisions take effect there, as in a job."""
        later = None if following is None else self._schedule.after(following)
        if self._listen(record) is True:
            self._reason = self._reason or "callback"
        self._reason = self._reason or self._stop()
        if self._progress.diverged(finite=taken.finite):
            self._reason = "diverged"
        elif record.loss is not None:
            evaluate = any(one is not None and one.evaluate for one in (following, later))
            spent = self._budget.spent(self._clock.now(), evaluate=evaluate)
            self._reason = self._reason or self._progress.reason(evaluated=plan.evaluate, spent=spent)
        if following is None or self._reason is None:
            return later
        return self._schedule.after(following, end=True)

    def _finish(self, last: StepRecord, heldout: dict[str, float] | None) -> Ending:
        """Leave the better of the model as it is now and the best one."""
        diverged = self._reason == "diverged"
        chosen = self._progress.choose(last.step, None if diverged else heldout)
        if chosen.restored:
            self._best.restore()
        if diverged:  # what led astray is forgotten
            for table in self._course.replica.tables:
                table.state[:] = 0
            self._course.remembers = False
        return Ending(self._reason or "epochs", last, chosen)


def _moved_rows(dataset: Dataset, replica: Replica) -> tuple[NDArray[np.uint32], ...] | None:
    """Return the rows of each table that little data for a large model can move, None for all."""
    files = [file for file in dataset.manifest.train if file.rows]
    if sum(file.rows for file in files) >= replica.tables[0].shape.rows:
        return None
    groups = [group for group in dataset.groups(files) if isinstance(group, RatingsGroup)]
    if not groups:  # L2 pulls at every row of a model of clicks
        return None
    users, items = ([group.users for group in groups], [group.items for group in groups])
    return np.unique(np.concatenate(users)), np.unique(np.concatenate(items))
