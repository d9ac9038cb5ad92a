"""The gradient of a mini-batch, for who has no more of the model than the rows which that names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlless.exchange.filter import SignificanceFilter
from mlless.job import JobSpec, Logistic, Nesterov, Sync
from mlless.kernels.arrays import Floats
from mlless.models import model_of
from mlless.models.base import BatchArrays
from mlless.replica import Replica

BSP = Sync(significance=0.0, half=False, merge="sum")


class Gradients:
    """Takes gradients in room for one mini-batch, as the job's optimizer wants them.

    ``mean`` says whether that is of the mean over samples; else it is of the sum.
    """

    def __init__(self, spec: JobSpec) -> None:
        self._model, self._optimizer = model_of(spec.model), spec.optimizer
        self.mean = isinstance(spec.model, Logistic) or isinstance(spec.optimizer, Nesterov)
        self._make([1 for _ in self._model.shapes])

    def _make(self, rows: Sequence[int]) -> None:
        shapes = zip(self._model.shapes, rows, strict=True)
        self._replica = Replica([replace(shape, rows=count) for shape, count in shapes])
        self._filter = SignificanceFilter(BSP, self._replica)

    def at(self, values: Sequence[Floats], batch: BatchArrays) -> tuple[list[Floats], float]:
        """Return the direction of descent, where the batch's rows have these values, and the loss."""
        if any(n > shape.rows for n, shape in zip(batch.touched, self._replica.shapes, strict=True)):
            self._make([n + n // 4 for n in batch.touched])  # one intercept stays one
        tables = self._replica.tables
        for table, rows in zip(tables, values, strict=True):
            table.shared[: len(rows)] = rows
        nothing = self._filter.prepare(0, batch.touched)._replace(threshold=np.inf)
        loss, _ = self._model.gradient(self._replica, batch.renumbered(), self._optimizer, nothing)
        directions = [table.residual[:n].copy() for table, n in zip(tables, batch.touched, strict=True)]
        for table in tables:
            table.residual[:] = 0
        return directions, loss
