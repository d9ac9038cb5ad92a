"""Matrix factorisation with biases (PMF: Salakhutdinov and Mnih, 2007; biases: Koren et al., 2009).

Two tables, users and items, of ``factors`` + 1 columns; the last is the bias, so that biases are
filtered and shared like everything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mlless import kernels
from mlless.job import Adagrad, Factorization, Nesterov
from mlless.kernels.arrays import Floats, Ids, RatingsArrays, Rule, Sent
from mlless.messages import Sums
from mlless.models.base import BatchArrays, Filter, Moment
from mlless.models.optimizers import ITSELF, move_rows, rule_of
from mlless.replica import Replica, TableShape


class FactorizationModel:
    """The model of a ``Factorization`` spec."""

    def __init__(self, spec: Factorization) -> None:
        self.spec = spec
        self.columns = spec.factors + 1
        self.shapes = (
            TableShape("users", spec.users, self.columns, apart=True),  # a group has all ratings of a user
            TableShape("items", spec.items, self.columns),
        )

    @property
    def null_loss(self) -> float:
        """The variance of the ratings as far as the scaling knows it."""
        return self.spec.deviation**2

    def initial(
        self, generator: np.random.Generator, rows: Mapping[str, int] | None = None
    ) -> dict[str, Floats]:
        """Return normal factors and zero biases."""
        arrays = {}
        for shape in self.shapes:
            count = shape.rows if rows is None else rows[shape.name]
            array = generator.standard_normal((count, shape.columns), np.float32)
            array *= np.float32(self.spec.initial_deviation)
            array[:, -1] = 0
            arrays[shape.name] = array
        return arrays

    def rules(self, optimizer: Adagrad | Nesterov, moment: Moment, samples: int) -> tuple[Rule, Rule]:
        """Return how users and items move.

        Damping of items, which all members train, is divided by the square root of the members, as measured.
        """
        together = 1.0 / math.sqrt(moment.members)
        return rule_of(optimizer, moment, damping=1.0), rule_of(optimizer, moment, damping=together)

    def step(
        self,
        replica: Replica,
        batch: BatchArrays,
        optimizer: Adagrad | Nesterov,
        moment: Moment,
        publish: Filter,
    ) -> tuple[float, tuple[Sent, ...]]:
        """Step along the batch's gradient: summed for Adagrad, which has no scale; else of the mean.

        The gradient of the mean squared error has a factor of 2, and so has the published one.
        """
        return self._step(replica, batch, optimizer, self.rules(optimizer, moment, batch.samples), publish)

    def gradient(
        self, replica: Replica, batch: BatchArrays, optimizer: Adagrad | Nesterov, publish: Filter
    ) -> tuple[float, tuple[Sent, ...]]:
        """Leave the direction of a step as the residual of the rows that the batch names."""
        return self._step(replica, batch, optimizer, (ITSELF, ITSELF), publish)

    def move(
        self,
        replica: Replica,
        directions: Sequence[tuple[Ids, Floats]],
        optimizer: Adagrad | Nesterov,
        moment: Moment,
        samples: int,
    ) -> bool:
        """Move users and items along directions."""
        return move_rows(replica.tables, directions, self.rules(optimizer, moment, samples))

    def _step(
        self,
        replica: Replica,
        batch: BatchArrays,
        optimizer: Adagrad | Nesterov,
        rules: tuple[Rule, Rule],
        publish: Filter,
    ) -> tuple[float, tuple[Sent, ...]]:
        assert isinstance(batch, RatingsArrays)
        spec, (users, items) = self.spec, replica.tables
        mean, modes = isinstance(optimizer, Nesterov), (publish.modes[0], publish.modes[1])
        loss, *sent = kernels.factorization_step(
            users.rows,
            items.rows,
            self.columns,
            batch,
            spec.centre,
            1.0 / spec.deviation,
            spec.l2,
            2.0 / len(batch.ratings) if mean else 1.0,
            *rules,
            publish.threshold,
            *modes,
            *publish.outboxes,
        )
        return loss * spec.deviation**2, (sent[0], sent[1])

    def settle(self, replica: Replica, optimizer: Adagrad | Nesterov, moment: Moment, samples: int) -> bool:
        """Do nothing: L2 is per rating, so an untouched row has nothing pending."""
        return False

    def evaluate(self, replica: Replica, batch: BatchArrays) -> Sums:
        """Return the squared error of clipped predictions."""
        assert isinstance(batch, RatingsArrays)
        spec, (users, items) = self.spec, replica.tables
        error = kernels.factorization_error(
            users.rows, items.rows, self.columns, batch, spec.centre, spec.deviation, spec.low, spec.high
        )
        return Sums(len(batch.ratings), error)

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return the root of the mean squared error in rating units."""
        return {"rmse": math.sqrt(sums.loss / sums.samples)} if sums.samples else {}
