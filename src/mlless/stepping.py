"""One step of a replica, up to what it publishes: the same for a worker and for training in the process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from mlless.checkpoint import Memory
from mlless.clock import Clock
from mlless.data.holding import Reads
from mlless.errors import NotFinite
from mlless.exchange.filter import SignificanceFilter
from mlless.exchange.update import Update, entries
from mlless.job import JobSpec
from mlless.kernels.arrays import Ids
from mlless.membership import groups_of
from mlless.messages import Evaluation, FunctionId, Plan, Report, Sums, Times
from mlless.models import model_of
from mlless.models.base import BatchArrays, Filter, Moment, add
from mlless.replica import Replica


class Laps:
    """Where the time of a step goes."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._times, self._since = clock, dict[str, float](), clock.now()

    def restart(self) -> None:
        """Count from now on; what was since the last lap belongs to no activity."""
        self._since = self._clock.now()

    def lap(self, activity: str) -> None:
        """Say what the time since the last lap was spent on."""
        now = self._clock.now()
        self._times[activity] = self._times.get(activity, 0.0) + now - self._since
        self._since = now

    def take(self) -> Times:
        """Return the times since the last call."""
        times, self._times = Times(**self._times), {}
        return times


@dataclass(frozen=True, slots=True)
class Taken:
    """What a step has come to: samples, the sum of their losses, and what is published.

    ``finite`` is False if a parameter stopped being a finite number; nothing is published then.
    """

    samples: int = 0
    loss: float = 0.0
    finite: bool = True
    update: Update = ()


class Rows(Protocol):
    """The rows of one worker, as ``data.holding.Holding`` keeps them.

    ``assembled`` is how many rows were put together for the newest mini-batch; 0 if it had been kept.
    """

    assembled: int

    def expect(self, groups: Iterable[int]) -> None:
        """Take in that ``groups`` will be owned soon."""
        ...

    def own(self, groups: tuple[int, ...]) -> None:
        """Own these groups and no others from now on."""
        ...

    def batch(self, epoch: int, parts: int, step: int) -> BatchArrays | None:
        """Return the mini-batch of a step of an epoch in so many parts; None if it has no rows."""
        ...

    def held_out(self) -> Iterable[BatchArrays]:
        """Return the held-out rows as mini-batches."""
        ...

    def take_reads(self) -> tuple[Reads, Reads]:
        """Return what has been read to train on and to score since the last call."""
        ...


class Stepper:
    """Takes the steps of one replica.

    With one worker nobody listens: then each change goes straight into ``shared``, which gives the same
    bits as publishing and merging it.
    """

    def __init__(self, spec: JobSpec, holding: Rows, replica: Replica, clock: Clock, laps: Laps) -> None:
        self._spec, self._replica, self._clock, self._laps = spec, replica, clock, laps
        self._model = model_of(spec.model)
        self.alone = spec.workers == 1
        self._filter = SignificanceFilter(spec.sync, replica, alone=self.alone)
        self._samples = 1  # of the newest mini-batch
        self.holding = holding
        self._owners = b""

    @property
    def memory(self) -> Memory:
        """What the next step depends on beside the replica."""
        return Memory(self._filter.exponents, self._samples)

    @memory.setter
    def memory(self, memory: Memory) -> None:
        self._filter.exponents = memory.exponents or self._filter.exponents
        self._samples = memory.samples

    def prepare(self, plan: Plan, worker: int) -> None:
        """Read what a worker needs in a step, before it takes its part."""
        self._own(plan, worker)
        self.holding.held_out()

    def _own(self, plan: Plan, worker: int) -> None:
        if plan.owners != self._owners:
            self._owners = plan.owners
            self.holding.own(groups_of(plan.owners, worker))

    def take_part(
        self, plan: Plan, who: FunctionId, scored: Callable[[Evaluation], object] = lambda evaluation: None
    ) -> tuple[Report, Update]:
        """Take a worker's part in a step; return the report, without times, and what to publish.

        ``scored`` hears what the evaluation came to, if one is due, before the model moves.
        """
        worker, generation = who
        self._own(plan, worker)
        self._laps.lap("fetch")
        evaluation = None
        if plan.evaluate:
            digest = "" if self.alone else self._replica.digest()
            evaluation = Evaluation(self._evaluate(), digest, 0, 0)
            scored(evaluation)
            self._laps.lap("evaluate")
        taken = self.flush(plan) if worker in plan.flush else self._train(plan, worker)
        training, scoring = self.holding.take_reads()
        self._clock.work("fetch", training.bytes + scoring.bytes)
        self._laps.lap("fetch")
        if evaluation is not None:
            evaluation = msgspec.structs.replace(evaluation, reads=scoring.files, bytes=scoring.bytes)
        else:  # it has read them ahead, to know whose they are
            training.files, training.bytes = training.files + scoring.files, training.bytes + scoring.bytes
        report = Report(
            worker=worker,
            generation=generation,
            step=plan.step,
            samples=taken.samples,
            loss=taken.loss,
            published=False,
            finite=taken.finite,
            entries=entries(taken.update),
            bytes_out=0,
            bytes_in=0,
            reads=training.files,
            bytes_fetched=training.bytes,
            times=Times(),
            evaluation=evaluation,
        )
        return report, taken.update

    def _evaluate(self) -> Sums:
        """Return how good ``shared`` is on the held-out rows of the worker's groups."""
        total = None
        for batch in self.holding.held_out():
            sums = self._model.evaluate(self._replica, batch)
            total = sums if total is None else add(total, sums)
            self._clock.work("evaluate", sums.samples)
        return total or Sums(0, 0.0)

    def _train(self, plan: Plan, worker: int) -> Taken:
        """Take a worker's step on the parts of its groups that the plan names; they may hold no row."""
        if worker not in plan.trainers:
            return Taken()
        if plan.length > 1:
            return self._train_locally(plan)
        batch = self._batch(plan.epoch, plan, 0)
        if batch is None:
            return Taken()
        moment = Moment(plan.batches, plan.epoch, len(plan.trainers))
        return self._step(batch, moment, self._filter.prepare(plan.step, batch.touched))

    def _batch(self, epoch: int, plan: Plan, number: int) -> BatchArrays | None:
        """Return the mini-batch of this number of a step, in the order of an epoch."""
        batch = self.holding.batch(epoch, plan.parts, plan.part + number)
        self._clock.work("assemble", self.holding.assembled)
        self._laps.lap("fetch")
        return batch

    def _step(self, batch: BatchArrays, moment: Moment, publish: Filter) -> Taken:
        """Move the replica along a mini-batch."""
        loss, sent = self._model.step(self._replica, batch, self._spec.optimizer, moment, publish)
        self._samples = batch.samples
        self._clock.work("compute", batch.samples)
        self._laps.lap("compute")
        try:
            return Taken(batch.samples, loss, update=self._filter.take(publish, sent))
        except NotFinite:
            return Taken(batch.samples, loss, finite=False)

    def _train_locally(self, plan: Plan) -> Taken:
        """Move the replica along several mini-batches; publish what is significant of all rows that moved."""
        moved: list[tuple[Ids, Ids]] = []
        moment = Moment(plan.batches, plan.epoch, len(plan.trainers))
        taken = self._walk(plan, plan.epoch, moment, lambda _, batch: moved.append(batch.named))
        if self.alone or not (moved and taken.finite):
            return taken
        taken = replace(taken, update=self._filter.sift(plan.step, moved))
        self._laps.lap("compute")
        return taken

    def _walk(
        self, plan: Plan, epoch: int, first: Moment, then: Callable[[Moment, BatchArrays], object]
    ) -> Taken:
        """Take the mini-batches of a step in the order that they have in an ``epoch``; publish nothing yet.

        The ``first`` one has this moment. ``then`` hears of the moment and the mini-batch of each.
        """
        total = Taken()
        for number in range(plan.length):
            batch = self._batch(epoch, plan, number)
            if batch is None:
                continue
            moment = first._replace(step=first.step + number)
            publish = self._filter.prepare(plan.step, batch.touched)._replace(threshold=math.inf)
            taken = self._step(batch, moment, publish)
            total = Taken(total.samples + taken.samples, total.loss + taken.loss, taken.finite)
            if not taken.finite:
                break
            then(moment, batch)
        return total

    def flush(self, plan: Plan) -> Taken:
        """Settle what is pending and publish the whole residual."""
        moved = self._model.settle(self._replica, self._spec.optimizer, moment_before(plan), self._samples)
        try:
            return Taken(update=self._filter.flush(moved))
        except NotFinite:
            return Taken(finite=False)


def moment_before(plan: Plan) -> Moment:
    """Return the moment of the step before one in which members flush: up to it they settle."""
    epoch = plan.epoch if plan.part else max(plan.epoch - 1, 0)
    return Moment(plan.batches - 1, epoch, len(plan.members))
