"""One replica and no peers: the training of one worker in the process that asks for it.

The same steps, plans and stopping as a job with one worker, without its messages: the same spec and
data set give the same model, bit for bit. What is more, a training can go on from where another has
ended: step count, optimizer state and tables are kept, and the tables may grow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlless import checkpoint
from mlless.checkpoint import Memory
from mlless.clock import Clock
from mlless.closing import Closing
from mlless.costing import Costing
from mlless.data.dataset import Dataset
from mlless.data.groups import RatingsGroup
from mlless.data.holding import Holding
from mlless.exchange.filter import SignificanceFilter
from mlless.job import Adagrad, Factorization, JobSpec, Logistic, Sync
from mlless.kernels.arrays import Floats, distinct_ids
from mlless.mark import Mark, Past, Rhythm, beginning
from mlless.membership import Schedule
from mlless.messages import Evaluation, Origin, Plan
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.records import StepRecord
from mlless.replica import Replica, TableShape, Undo
from mlless.stepping import Laps, Stepper
from mlless.stopping import Choice, Score

_ME = (0, 0)  # the only function
_NOWHERE = Origin("", 0, "")  # of a replica that is where it is
_STILL = 1e-30  # a learning rate that fills the optimizer's state and moves nothing

Listener = Callable[[StepRecord], object]
Marker = Callable[[Mark, float, Callable[[], bytes]], None]
Keeper = Callable[[Score, Callable[[], dict[str, Floats]]], None]


@dataclass
class Course:
    """Where a training stands: the steps it has taken, and its replica with the optimizer's state.

    ``remembers`` is False where the state has been lost, as in a model read from a file.
    """

    step: int
    replica: Replica
    remembers: bool = True
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True)
class Ending:
    """How a training ended, and with which ``model``; the other names are those of ``records.Summary``."""

    stop_reason: str
    last: StepRecord
    model: Choice


def begin(spec: Factorization | Logistic, seed: int, shapes: Sequence[TableShape] | None = None) -> Course:
    """Return the start of a training: x_0, made from the seed as a driver makes it.

    ``shapes`` say which rows are owned, where any are.
    """
    model = model_of(spec)
    replica = Replica(shapes or model.shapes)
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
    kept: Keeper = lambda best, read: None,
    marked: Marker | None = None,
    mark: Mark | None = None,
    past: Past | None = None,
    best: dict[str, Floats] | None = None,
) -> Ending:
    """Train ``course`` on; its replica then holds the result, with no residual left.

    ``listen`` hears of every step and may return True to end the training in order; so does a reason
    that ``stop`` gives. ``kept`` hears of every best model so far, and what gives its tables in any thread.
    Where a training that goes on diverges, its start is kept. ``marked`` hears of every checkpoint, of the
    seconds that it has taken, and what gives its bytes in any thread. One that is resumed goes on from a
    ``mark``, with the ``past`` before it and the ``best`` model of its progress.
    """
    holding = Holding(dataset, spec.seed)
    if not course.remembers:
        recall(spec, holding, course)
    training = _Training(spec, dataset, holding, course, clock, listen, stop, kept, marked, mark, past)
    if best is not None:
        training.best.remember(best)
    return training.run()


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
    model, significance = model_of(spec.model), SignificanceFilter(silent, course.replica)
    moment = Moment(course.step, 0, 1)
    holding.own(tuple(range(spec.groups)))
    for part in range(spec.batches):
        batch = holding.batch(0, spec.batches, part)
        if batch is None:  # a tiny mini-batch may have no row
            continue
        publish = significance.prepare(course.step, batch.touched)._replace(threshold=np.inf)
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
        marked: Marker | None,
        mark: Mark | None,
        past: Past | None,
    ) -> None:
        self._course, self._clock, self._stop, self._kept, self._marked = course, clock, stop, kept, marked
        self._laps = Laps(clock)
        self._stepper = Stepper(spec, holding, course.replica, clock, self._laps)
        self._schedule = Schedule.of(spec, [file.rows for file in dataset.manifest.train])
        self._mark = mark or _beginning(spec, self._schedule, course.step)
        self._stepper.memory = course.memory
        self.best = Undo(course.replica, _moved_rows(dataset, course.replica))
        # No function has to exit, and no model to be stored.
        costing = Costing(spec, None, parameters=0, grace=0.0)
        now = clock.now()
        start = now - (past.seconds if past else 0.0)
        costing.open(start)
        costing.begin(now)
        self._rhythm = Rhythm(spec.checkpoint_every)
        self._rhythm.begin(now)
        self._closing = Closing(
            spec, self._schedule, self._mark.progress, start=start, costing=costing, listen=self._hear
        )
        if past is not None:
            self._closing.resume(self._mark, past.records)
        self._listen = listen
        self._last: StepRecord | None = None

    def run(self) -> Ending:
        """Take step after step until the one in which the finished model is scored."""
        plan, following = self._mark.plan, self._mark.following
        self._laps.restart()
        while True:
            report, _ = self._stepper.take_part(plan, _ME, partial(self._scored, plan))
            report = msgspec.structs.replace(report, times=self._laps.take())
            if report.evaluation is None:
                self._closing.score(plan, {})
            if not plan.last:
                self._course.step = plan.step + 1
            verdict = self._closing.close(plan, following, (report,), self._clock.now())
            if following is None:
                return self._finish(plan.step)
            if verdict.diverged:
                plan, following = self._schedule.abandoned(plan), None
            else:
                before = plan
                plan, following = following, self._schedule.after(following, end=verdict.stop)
                self._keep_mark(before, Mark(plan, following, _NOWHERE, verdict.progress))

    def _keep_mark(self, before: Plan, mark: Mark) -> None:
        """Make a checkpoint, if one is due as the step ``before`` is closed: a copy, to be put away later."""
        began = self._clock.now()
        if self._marked is None or not mark.plan.trainers or not self._rhythm.is_due(before, began):
            return
        self._rhythm.make(began)
        replica, memory = self._course.replica, self._stepper.memory
        arrays, metadata = checkpoint.origin_of(replica, mark.plan.step, memory, whole=True)
        self._laps.lap("keep")
        seconds = self._clock.now() - began
        self._rhythm.made(seconds)
        self._marked(mark, seconds, lambda: checkpoint.packed(arrays, metadata))

    def _scored(self, plan: Plan, evaluation: Evaluation) -> None:
        if self._closing.score(plan, {0: evaluation}):
            assert self._closing.best is not None
            self._kept(self._closing.best, self.best.keep())

    def _hear(self, record: StepRecord) -> bool:
        self._last = record
        ends = self._listen(record) is True
        if (reason := self._stop()) is not None:
            self._closing.ask(reason)
        return ends

    def _finish(self, step: int) -> Ending:
        """Leave the better of the model as it is now and the best one."""
        chosen, reason = self._closing.chosen(step), self._closing.reason or "epochs"
        if chosen.restored:
            self.best.restore()
        if reason == "diverged":  # what led astray is forgotten
            for table in self._course.replica.tables:
                table.state[:] = 0
            self._course.remembers = False
        assert self._last is not None, "a training without a step"
        return Ending(reason, self._last, chosen)


def _beginning(spec: JobSpec, schedule: Schedule, step: int) -> Mark:
    """Return the mark of a training that begins its epochs in a step."""
    mark = beginning(spec, schedule, _NOWHERE)
    plan = msgspec.structs.replace(mark.plan, step=step)
    return replace(mark, plan=plan, following=schedule.after(plan))


def _moved_rows(dataset: Dataset, replica: Replica) -> tuple[NDArray[np.uint32], ...] | None:
    """Return the rows of each table that little data for a large model can move, None for all."""
    files = [file for file in dataset.manifest.train if file.rows]
    if sum(file.rows for file in files) >= replica.tables[0].shape.rows:
        return None
    groups = [group for group in dataset.groups(files) if isinstance(group, RatingsGroup)]
    if not groups:  # L2 pulls at every row of a model of clicks
        return None
    users, items = ([group.users for group in groups], [group.items for group in groups])
    return distinct_ids(users), distinct_ids(items)
