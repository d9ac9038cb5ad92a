"""The PyTorch systems in a virtual world: their steps by our kernels, their times by PyTorch's rates.

PyTorch itself would take real seconds for what is to take virtual ones. That its steps and these come to the
same model, to rounding, is tested for real. Where all replicas are the same anyway, the world has one:
gradients are averaged on shared tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from mlless.baselines.contract import Function, Tables
from mlless.baselines.gradients import Gradients
from mlless.baselines.pytorch import Task
from mlless.baselines.pytorch.course import Course, Moved, Taken, Trainer, in_a_ring
from mlless.clock import Clock
from mlless.data.holding import Holding
from mlless.exchange import codec
from mlless.exchange.update import Update, entries
from mlless.job import JobSpec, Nesterov
from mlless.kernels.arrays import Floats, Ids
from mlless.local import begin
from mlless.messages import Plan
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.simulation.meeting import Ring
from mlless.simulation.roles import Roles
from mlless.stepping import Laps, Stepper, moment_before

_ID = 8  # bytes of a row's number in a tensor
Direction = Sequence[tuple[Ids, Floats]]  # for some rows of each table


class Shared:
    """The one model of all replicas that are the same, and the state of PyTorch's optimizer."""

    def __init__(self, job: JobSpec) -> None:
        self._job, self._model = job, model_of(job.model)
        replica = begin(job.model, job.seed).replica
        self.names = [shape.name for shape in replica.shapes]
        self.tables = [table.shared.copy() for table in replica.tables]
        self._states = [np.zeros_like(table) for table in self.tables]
        self._gradients = [np.zeros_like(table) for table in self.tables]

    def move(self, plan: Plan, brought: Sequence[Direction]) -> None:
        """Take a step of the optimizer along the mean of directions, one of each worker."""
        moment = Moment(plan.step, plan.epoch, len(plan.trainers))
        rules = self._model.rules(self._job.optimizer, moment, self._job.batch_size)
        share = np.float32(1.0 / len(brought))
        for number, (table, state, gradient, rule) in enumerate(
            zip(self.tables, self._states, self._gradients, rules, strict=True)
        ):
            gradient[:] = 0
            for one in brought:
                rows, direction = one[number]
                gradient[rows] -= direction * share
            if rule.decay:
                gradient += np.float32(rule.decay) * table
            if isinstance(self._job.optimizer, Nesterov):
                state *= np.float32(rule.momentum)
                state += gradient
                gradient += np.float32(rule.momentum) * state
            else:
                state += gradient * gradient
                gradient /= np.sqrt(state) + np.float32(rule.epsilon)
            table -= np.float32(rule.rate) * np.nan_to_num(
                gradient, copy=False, posinf=np.inf, neginf=-np.inf
            )


class _Averaging:
    """A function's part where gradients are averaged."""

    def __init__(self, function: Function, holding: Holding, laps: Laps, ring: Ring, shared: Shared) -> None:
        self._me, self._job, self._clock = function.launch.me, function.launch.job, function.clock
        self._holding, self._laps, self._ring, self._shared = holding, laps, ring, shared
        self._gradients = Gradients(self._job)
        self._size = sum(table.size for table in shared.tables)
        self._bytes = in_a_ring(4 * self._size, self._job.workers)

    def tables(self) -> Tables:
        """Return a copy of the model."""
        tables = zip(self._shared.names, self._shared.tables, strict=True)
        return {name: table.copy() for name, table in tables}

    def step(self, plan: Plan) -> Taken:
        """Take the gradient, and with the last of all move the model."""
        batch = self._holding.batch(plan.epoch, plan.parts, plan.part)
        self._laps.lap("fetch")
        samples, loss = 0, 0.0
        mine: Direction = [(table_rows[:0], table[:0]) for table_rows, table in self._nothing()]
        if batch is not None:
            samples, tables = batch.samples, zip(self._shared.tables, batch.named, strict=True)
            directions, loss = self._gradients.at([table[rows] for table, rows in tables], batch)
            mine = list(zip(batch.named, directions, strict=True))
        self._clock.work("averaged", samples)
        self._clock.work("dense", self._size)
        self._laps.lap("compute")
        self._ring.meet(self._me, mine, lambda brought: self._shared.move(plan, brought))
        self._ring.send_round(self._me, self._bytes)
        self._laps.lap("wait")
        return Taken(samples, loss, Moved(self._size, self._bytes))

    def _nothing(self) -> list[tuple[Ids, Floats]]:
        return [(np.empty(0, np.uint32), table) for table in self._shared.tables]

    def settle(self, plan: Plan) -> Moved:
        """Do nothing: PyTorch's L2 pulls at all rows in every step."""
        return Moved()


class _Still:
    """A clock for what takes no time: that is told by PyTorch's rates."""

    def now(self) -> float:
        """Return nothing."""
        return 0.0

    def pause(self, seconds: float) -> None:
        """Do nothing."""

    def work(self, activity: str, units: int) -> None:
        """Do nothing."""


class _Matched:
    """A function's part where the steps are those of MLLess with BSP."""

    def __init__(self, function: Function, holding: Holding, laps: Laps, ring: Ring, *, whole: bool) -> None:
        self._me, self._job, self._clock = function.launch.me, function.launch.job, function.clock
        self._laps, self._ring, self._whole = laps, ring, whole
        still: Clock = _Still()
        self._replica = begin(self._job.model, self._job.seed).replica
        self._stepper = Stepper(self._job, holding, self._replica, still, Laps(still))
        self._columns = [shape.columns for shape in self._replica.shapes]
        self._size = sum(shape.rows * shape.columns for shape in self._replica.shapes)
        self._known: set[tuple[int, int]] = set()

    def tables(self) -> Tables:
        """Return a copy of the model."""
        return self._replica.snapshot()

    def step(self, plan: Plan) -> Taken:
        """Take a step, and add what all have changed."""
        report, update = self._stepper.take_part(msgspec.structs.replace(plan, evaluate=False), self._me)
        self._clock.work("matched" if self._whole else "gathered", report.samples)
        if self._whole:
            self._clock.work("added", self._size)
        self._laps.lap("compute")
        moved = self._exchange((plan.parts, plan.part), update, [len(part.rows) for part in update])
        return Taken(report.samples, report.loss if report.finite else math.nan, moved)

    def settle(self, plan: Plan) -> Moved:
        """Bring the L2 of all rows up to date."""
        rules = model_of(self._job.model).rules(self._job.optimizer, moment_before(plan), 1)
        if not any(rule.decay for rule in rules):
            return Moved()
        _, update = self._stepper.take_part(msgspec.structs.replace(plan, evaluate=False), self._me)
        shapes = zip(self._replica.shapes, rules, strict=True)
        return self._exchange((0, 0), update, [shape.rows if rule.decay else 0 for shape, rule in shapes])

    def _exchange(self, key: tuple[int, int], update: Update, rows: Sequence[int]) -> Moved:
        """Add what all have changed; PyTorch would move so many ``rows`` of each table."""
        rows = rows or [0] * len(self._columns)
        values = sum(count * columns for count, columns in zip(rows, self._columns, strict=True))
        packed = codec.pack(update, "none") if entries(update) else None
        brought = self._ring.meet(self._me, (packed, values, sum(rows)))
        updates = {str(worker): one for worker, (one, _, _) in enumerate(brought) if one is not None}
        self._replica.merge(updates, self._job.sync.merge, len(brought))
        size = self._bytes(key, [(one[1], one[2]) for one in brought])
        self._ring.send_round(self._me, size)
        self._laps.lap("wait")
        return Moved(self._size if self._whole else values, size)

    def _bytes(self, key: tuple[int, int], brought: Sequence[tuple[int, int]]) -> int:
        """Return what each sends: whole tables in a ring, or values to all, whose rows are told once."""
        if self._whole:
            counted = 2 if self._job.sync.merge == "sqrt-publishers" else 1
            return in_a_ring(4 * counted * self._size, self._job.workers)
        longest = 4 * max(values for values, _ in brought)
        if key not in self._known:
            self._known.add(key)
            longest += _ID * (len(self._columns) + max(rows for _, rows in brought))
        return (self._job.workers - 1) * longest


class Together:
    """All functions of a job: the ring in which they meet, and the model that they have in common."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._meeting: Ring | None = None
        self._model: Shared | None = None

    def work(self, function: Function) -> None:
        """Be one of the functions, and follow who leads."""
        job = function.launch.job
        task = msgspec.json.decode(function.launch.task, type=Task)
        laps, holding = Laps(function.clock), Holding(function.dataset, job.seed)
        trainer: Trainer
        if task.exchange == "average":
            trainer = _Averaging(function, holding, laps, self._ring(job), self._shared(job))
        else:
            trainer = _Matched(function, holding, laps, self._ring(job), whole=task.exchange == "all-reduce")
        Course(function, holding, laps, trainer).follow()

    def _ring(self, job: JobSpec) -> Ring:
        if self._meeting is None:
            self._meeting = Ring(self._roles, job.workers)
        return self._meeting

    def _shared(self, job: JobSpec) -> Shared:
        if self._model is None:
            self._model = Shared(job)
        return self._model
