"""One replica and no peers: the training of one worker in the process that asks for it.

The same steps, plans and stopping as a job with one worker, without its messages: the same spec and
data set give the same model, bit for bit. What is more, a training can go on from where another has
ended: step count, optimizer state and tables are kept, and the tables may grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlless.billing.budget import Budget, Scoring, StepUse
from mlless.clock import Clock
from mlless.data.batches import Batch, RatingsBatch
from mlless.data.dataset import Dataset
from mlless.data.stream import KEPT
from mlless.exchange.filter import SignificanceFilter
from mlless.heldout import score_heldout
from mlless.job import Adagrad, Factorization, JobSpec, Logistic, Sync
from mlless.kernels.arrays import Floats
from mlless.membership import next_plan
from mlless.messages import Plan, Sums
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.records import StepRecord, StepTimes
from mlless.replica import Replica, Undo
from mlless.stepping import Laps, Stepper, Taken
from mlless.stopping import Progress, goes_back

_STILL = 1e-30  # a learning rate that fills the optimizer's state and moves nothing

Listener = Callable[[StepRecord], object]


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
    last: StepRecord
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
) -> Ending:
    """Train ``course`` on; its replica then holds the result, with no residual left.

    ``listen`` hears of every step and may return True to end the training in order; so does a reason
    that ``stop`` gives. Where a training that goes on diverges, its start is kept.
    """
    if not course.remembers:
        recall(spec, dataset, course)
    return _Training(spec, dataset, course, clock, listen, stop).run()


def recall(spec: JobSpec, dataset: Dataset, course: Course) -> None:
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
    for file in dataset.manifest.train:
        batch = dataset.read(file)
        publish = keep.prepare(course.step, batch.touched)._replace(threshold=np.inf)
        model.step(course.replica, batch.arrays, still, moment, publish)
    for table in course.replica.tables:
        table.residual[:] = 0


class _Training:
    """One run from a course's present step to its end."""

    def __init__(
        self,
        spec: JobSpec,
        dataset: Dataset,
        course: Course,
        clock: Clock,
        listen: Listener,
        stop: Callable[[], str | None],
    ) -> None:
        self._spec, self._course, self._clock, self._listen, self._stop = spec, course, clock, listen, stop
        self._dataset, self._model, self._laps = dataset, model_of(spec.model), Laps(clock)
        self._stepper = Stepper(spec, dataset, course.replica, clock, self._laps)
        self._progress = Progress(spec.stop, self._model.null_loss)
        held_out = sum(file.bytes for file in dataset.manifest.validation)
        self._heldout = list(self._read_heldout()) if held_out <= KEPT else None
        self._best = Undo(course.replica, self._moved_rows())
        self._reason: str | None = None
        self._start = clock.now()
        # No function has to exit, and no model to be stored.
        self._budget = Budget(deadline=self._start + (spec.stop.max_time or math.inf), grace=0.0)
        self._budget.begin(self._start)

    def run(self) -> Ending:
        """Take step after step until the one in which what is pending is settled."""
        plan: Plan = Plan(step=self._course.step, members=(0,), position=0, evaluate=True)
        following = self._after(plan)
        self._laps.restart()
        while True:
            before = self._clock.now()
            heldout = self._evaluate(plan.step) if plan.evaluate else None
            seconds = self._clock.now() - before
            self._laps.lap("evaluate")
            taken = self._stepper.flush(plan) if plan.flush else self._stepper.train(plan, 0)
            record = self._close(plan, taken, heldout)
            scoring = Scoring(seconds=seconds, longest=seconds) if plan.evaluate else None
            self._budget.add_step(self._clock.now(), StepUse(scoring=scoring))
            later = self._decide(plan, following, record, taken)
            self._course.step = plan.step + 1
            if self._reason == "diverged" or following is None:
                return self._finish(record)
            plan, following = following, later

    def _after(self, plan: Plan | None) -> Plan | None:
        if plan is None:
            return None
        spec = self._spec
        end = self._reason is not None
        return next_plan(plan, batches=spec.batches, epochs=spec.stop.epochs, end=end)

    def _moved_rows(self) -> tuple[NDArray[np.uint32], ...] | None:
        """Return the rows of each table that little data for a large model can move, None for all."""
        files = self._dataset.manifest.train
        few = sum(file.rows for file in files) < self._course.replica.tables[0].shape.rows
        batches = [self._dataset.read(file) for file in files] if few else []
        ratings = [batch for batch in batches if isinstance(batch, RatingsBatch)]
        if not ratings:  # L2 pulls at every row of a model of clicks
            return None
        users, items = ([one.users for one in ratings], [one.items for one in ratings])
        return np.unique(np.concatenate(users)), np.unique(np.concatenate(items))

    def _read_heldout(self) -> Iterable[Batch]:
        return self._dataset.batches(self._dataset.manifest.validation)

    def _evaluate(self, step: int) -> dict[str, float]:
        heldout = self._model.metrics(self._score()[0])
        if self._progress.add_evaluation(step, heldout):
            self._best.keep()
        return heldout

    def _close(self, plan: Plan, taken: Taken, heldout: dict[str, float] | None) -> StepRecord:
        spec = self._spec
        loss = taken.loss / taken.samples if taken.samples else None
        if loss is not None:
            self._progress.add_step(loss)
        return StepRecord(
            step=plan.step,
            epoch=min((plan.position + len(plan.trainers)) / spec.batches, spec.stop.epochs),
            time=self._clock.now() - self._start,
            loss=loss,
            train_loss=self._progress.train_loss,
            heldout=heldout,
            workers=1,
            samples=taken.samples,
            entries=0,
            bytes_out=0,
            bytes_in=0,
            bytes_fetched=taken.fetched,
            times=StepTimes(*msgspec.structs.astuple(self._laps.take())),
        )

    def _decide(self, plan: Plan, following: Plan | None, record: StepRecord, taken: Taken) -> Plan | None:
        """Return the plan of the step after the following one: decisions take effect there, as in a job."""
        if self._listen(record) is True:
            self._reason = self._reason or "callback"
        self._reason = self._reason or self._stop()
        if self._progress.diverged(finite=taken.finite):
            self._reason = "diverged"
        elif record.loss is not None:
            evaluate = any(one is not None and one.evaluate for one in (following, self._after(following)))
            spent = self._budget.spent(self._clock.now(), finisher=0, evaluate=evaluate)
            self._reason = self._reason or self._progress.reason(evaluated=plan.evaluate, spent=spent)
        return self._after(following)

    def _finish(self, last: StepRecord) -> Ending:
        """Leave the better of the model as it is now and the best one."""
        diverged = self._reason == "diverged"
        heldout = {} if diverged else self._exact()
        best, step = self._progress.best, last.step + 1
        restored = best is not None and (diverged or goes_back(best, heldout))
        if restored and best is not None:
            self._best.restore()
            heldout, step = self._exact(), best.step
        if diverged:  # what led astray is forgotten
            for table in self._course.replica.tables:
                table.state[:] = 0
            self._course.remembers = False
        heldout = {name: value for name, value in heldout.items() if math.isfinite(value)}
        return Ending(self._reason or "epochs", last, self._progress.train_loss, heldout, step, restored)

    def _score(self) -> tuple[Sums, Floats, Floats]:
        batches = self._read_heldout() if self._heldout is None else self._heldout
        return score_heldout(self._model, self._course.replica, batches, self._clock)

    def _exact(self) -> dict[str, float]:
        return self._model.exact(*self._score())
