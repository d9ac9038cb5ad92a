"""The contract of a model, and the arguments that all steps share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from mlless.job import Adagrad, Nesterov
from mlless.kernels.arrays import ClicksArrays, Floats, Ids, Outbox, RatingsArrays, Rule, Sent
from mlless.messages import Sums
from mlless.replica import Replica, TableShape

BatchArrays = RatingsArrays | ClicksArrays


class Filter(NamedTuple):
    """The fused filter's part of a step: publish where ``|residual| > threshold * |shared|``.

    ``modes`` says how, table by table: in float32 or float16, or straight into ``shared`` (see
    ``kernels.arrays.Outbox``).
    """

    threshold: float
    modes: Sequence[int]
    outboxes: Sequence[Outbox]


class Moment(NamedTuple):
    """When a step is taken: its number and epoch, both from 0, and how many members train in it."""

    step: int
    epoch: int
    members: int


class Model(Protocol):
    """A model over a replica's tables. A step costs O(batch), never O(model)."""

    @property
    def shapes(self) -> tuple[TableShape, ...]:
        """The tables of parameters."""
        ...

    @property
    def null_loss(self) -> float:
        """What a constant prediction loses on average, in the units of ``step``'s loss."""
        ...

    def initial(
        self, generator: np.random.Generator, rows: Mapping[str, int] | None = None
    ) -> dict[str, Floats]:
        """Return x_0, table by table: all rows, or as many further rows of each table as ``rows`` says."""
        ...

    def rules(self, optimizer: Adagrad | Nesterov, moment: Moment, samples: int) -> tuple[Rule, Rule]:
        """Return how the rows of each table move in a step on this number of samples."""
        ...

    def step(
        self,
        replica: Replica,
        batch: BatchArrays,
        optimizer: Adagrad | Nesterov,
        moment: Moment,
        publish: Filter,
    ) -> tuple[float, tuple[Sent, ...]]:
        """Move the replica along the batch's gradient and fill the outboxes, one a table.

        Returns the loss before the step, summed over the batch (squared error in rating units, or
        log loss), and what was sent. ValueError if the batch does not fit the tables.
        """
        ...

    def gradient(
        self, replica: Replica, batch: BatchArrays, optimizer: Adagrad | Nesterov, publish: Filter
    ) -> tuple[float, tuple[Sent, ...]]:
        """Add the direction along which ``step`` would move to the residual, which is zero before.

        This is the first half of a step, for systems that do not keep the model in the worker. L2 that is no
        part of the gradient comes with the other half. The rest is as in ``step``: a threshold of infinity
        publishes nothing.
        """
        ...

    def move(
        self,
        replica: Replica,
        directions: Sequence[tuple[Ids, Floats]],
        optimizer: Adagrad | Nesterov,
        moment: Moment,
        samples: int,
    ) -> bool:
        """Move ``shared`` along directions, each for some rows of a table; return whether all is finite.

        This is the other half of a step. After the ``gradient`` of a mini-batch of this number of samples it
        gives the same bits as ``step`` and a merge of all that it publishes, if nobody else takes part.
        """
        ...

    def settle(self, replica: Replica, optimizer: Adagrad | Nesterov, moment: Moment, samples: int) -> bool:
        """Bring every row's pending change (L2 of the steps that passed it by) up to ``moment``.

        ``samples`` is the size of the mini-batch then. Returns whether any row may have changed.
        """
        ...

    def evaluate(self, replica: Replica, batch: BatchArrays) -> Sums:
        """Return a batch's part of the held-out metrics of ``shared``."""
        ...

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return the held-out metrics, the one that picks the best model (lower is better) first."""
        ...


def add(left: Sums, right: Sums) -> Sums:
    """Return the sums of two disjoint slices."""
    return Sums(
        left.samples + right.samples,
        left.loss + right.loss,
        tuple(a + b for a, b in zip(left.negatives, right.negatives, strict=True)),
        tuple(a + b for a, b in zip(left.positives, right.positives, strict=True)),
    )
