"""One step of a replica, up to what it publishes: the same for a worker and for training in the process."""

from __future__ import annotations

from dataclasses import dataclass

from mlless.clock import Clock
from mlless.data.dataset import Dataset
from mlless.data.stream import BatchStream
from mlless.errors import NotFinite
from mlless.exchange.filter import SignificanceFilter
from mlless.exchange.update import Update
from mlless.job import JobSpec
from mlless.membership import position_of
from mlless.messages import Plan, Times
from mlless.models import model_of
from mlless.models.base import Moment
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
    """What a step has come to: samples, the sum of their losses, bytes read, and what is published.

    ``finite`` is False if a parameter stopped being a finite number; nothing is published then.
    """

    samples: int = 0
    loss: float = 0.0
    fetched: int = 0
    finite: bool = True
    update: Update = ()


class Stepper:
    """Takes the steps of one replica.

    With one worker nobody listens: then each change goes straight into ``shared``, which gives the same
    bits as publishing and merging it.
    """

    def __init__(self, spec: JobSpec, dataset: Dataset, replica: Replica, clock: Clock, laps: Laps) -> None:
        self._spec, self._replica, self._clock, self._laps = spec, replica, clock, laps
        self._model = model_of(spec.model)
        self.alone = spec.workers == 1
        self._filter = SignificanceFilter(spec.sync, replica, alone=self.alone)
        self._samples = 1  # of the newest mini-batch
        self.stream = BatchStream(dataset, spec)

    def position(self, plan: Plan, worker: int) -> int | None:
        """Return the position that a worker trains on in a step, None if it has none."""
        position = position_of(plan, worker)
        return position if position is not None and position < self._spec.positions else None

    def train(self, plan: Plan, worker: int) -> Taken:
        """Take a worker's step; nothing happens where it has no position."""
        position = self.position(plan, worker)
        if position is None:
            return Taken()
        fetched = self.stream.take(position)
        batch = fetched.batch
        self._clock.work("fetch", fetched.bytes)
        self._laps.lap("fetch")
        publish = self._filter.prepare(plan.step, batch.touched)
        moment = self._moment(plan.step, plan.position, len(plan.trainers))
        loss, sent = self._model.step(self._replica, batch.arrays, self._spec.optimizer, moment, publish)
        self._samples = len(batch)
        self._clock.work("compute", len(batch))
        self._laps.lap("compute")
        try:
            return Taken(len(batch), loss, fetched.bytes, update=self._filter.take(publish, sent))
        except NotFinite:
            return Taken(len(batch), loss, fetched.bytes, finite=False)

    def flush(self, plan: Plan) -> Taken:
        """Settle what is pending and publish the whole residual."""
        moment = self._moment(plan.step - 1, plan.position - 1, len(plan.members))
        moved = self._model.settle(self._replica, self._spec.optimizer, moment, self._samples)
        try:
            return Taken(update=self._filter.flush(moved))
        except NotFinite:
            return Taken(finite=False)

    def _moment(self, step: int, position: int, members: int) -> Moment:
        return Moment(step, max(position, 0) // self._spec.batches, members)
