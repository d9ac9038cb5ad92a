"""Scores models on all held-out rows, for who leads a job whose workers do not wait for one another."""

from __future__ import annotations

from mlless.baselines.contract import Tables
from mlless.clock import Clock
from mlless.data.dataset import Dataset
from mlless.data.holding import Holding
from mlless.job import JobSpec
from mlless.messages import Evaluation, Sums
from mlless.models import model_of
from mlless.models.base import add
from mlless.replica import Replica


class Judge:
    """Has the held-out rows of a data set, which are read once unless they are many."""

    def __init__(self, spec: JobSpec, dataset: Dataset, clock: Clock) -> None:
        self._model, self._clock = model_of(spec.model), clock
        self._replica = Replica(self._model.shapes)
        self._holding = Holding(dataset, spec.seed, room=0)  # no row to train on
        self._holding.own(tuple(range(spec.groups)))

    def score(self, tables: Tables) -> tuple[Evaluation, float]:
        """Return what the evaluation of a model comes to, and the seconds it took."""
        began = self._clock.now()
        self._replica.restore(tables)
        total = Sums(0, 0.0)
        for batch in self._holding.held_out():
            sums = self._model.evaluate(self._replica, batch)
            total = add(total, sums) if total.samples else sums
            self._clock.work("evaluate", sums.samples)
        _, reads = self._holding.take_reads()
        return Evaluation(total, "", reads.files, reads.bytes), self._clock.now() - began
