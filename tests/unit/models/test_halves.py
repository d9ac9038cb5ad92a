"""A step in two halves, the gradient in one place and the move in another, is the step."""

from __future__ import annotations

import numpy as np
import pytest

from mlless.data.dataset import Dataset
from mlless.data.holding import Holding
from mlless.exchange.filter import SignificanceFilter
from mlless.job import Adagrad, Nesterov, Sync
from mlless.local import begin
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.recipes import job_of
from mlless.replica import Replica, TableShape
from mlless.wishes import Wishes

BSP = Sync(significance=0.0, half=False, merge="sum")
OPTIMIZERS = [Adagrad(learning_rate=0.3, damping=2.0, fading=0.9), Nesterov(learning_rate=0.5)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adagrad", "nesterov"])
@pytest.mark.parametrize("kind", ["ratings", "clicks"])
def test_a_gradient_and_a_move_are_a_step(
    kind: str, optimizer: Adagrad | Nesterov, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    spec = job_of(Wishes(workers=1, batch_size=500, l2=0.05), dataset.manifest, dataset.location)
    model, holding = model_of(spec.model), Holding(dataset, 3)
    holding.own(tuple(range(spec.groups)))
    whole, kept = (begin(spec.model, 3).replica for _ in range(2))
    alone = SignificanceFilter(BSP, whole, alone=True)
    for step in range(10):
        batch, moment = holding.batch(0, spec.batches, step), Moment(step, step // 5, 1)
        assert batch is not None
        loss, _ = model.step(whole, batch, optimizer, moment, alone.prepare(step, batch.touched))

        named = [TableShape(s.name, n, s.columns) for s, n in zip(kept.shapes, batch.touched, strict=True)]
        scratch = Replica(named)
        silent = SignificanceFilter(BSP, scratch).prepare(0, batch.touched)._replace(threshold=np.inf)
        for mine, table, rows in zip(scratch.tables, kept.tables, batch.named, strict=True):
            mine.shared[:] = table.shared[rows]
        found, sent = model.gradient(scratch, batch.renumbered(), optimizer, silent)
        directions = [
            (rows, table.residual.copy()) for rows, table in zip(batch.named, scratch.tables, strict=True)
        ]
        assert model.move(kept, directions, optimizer, moment, batch.samples)
        assert found == loss
        assert [part[:2] for part in sent] == [(0, 0), (0, 0)]
    for one, other in zip(whole.tables, kept.tables, strict=True):
        assert one.rows.data.tobytes() == other.rows.data.tobytes()


def test_a_direction_that_is_not_finite_is_told(ratings: Dataset) -> None:
    spec = job_of(Wishes(workers=1), ratings.manifest, ratings.location)
    replica = begin(spec.model, 1).replica
    rows = np.arange(2, dtype=np.uint32)
    directions = [(rows, np.full((2, table.shape.columns), np.nan, np.float32)) for table in replica.tables]
    assert not model_of(spec.model).move(replica, directions, spec.optimizer, Moment(0, 0, 1), 2)
