"""Mini-batches in tensors, and what they lose: the losses of our models, whose gradients are PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mlless.job import Factorization, Logistic
from mlless.kernels.arrays import RatingsArrays
from mlless.models.base import BatchArrays


class Batch(NamedTuple):
    """A mini-batch in tensors.

    ``rows`` are those that it touches, of each table. Its ratings or entries are of the rows at ``places``:
    among them, or in the whole tables. ``key`` is the same on all workers.
    """

    key: tuple[int, int]
    samples: int
    rows: tuple[Tensor, Tensor]
    places: tuple[Tensor, Tensor]
    targets: Tensor
    starts: Tensor
    values: Tensor | None = None
    weights: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        tensors = *self.rows, *self.places, self.targets, self.starts, self.values, self.weights
        return sum(one.nbytes for one in tensors if one is not None)


def _tensor(array: Any, kind: type[np.generic]) -> Tensor:
    return torch.from_numpy(np.asarray(array).astype(kind))


def batch_of(
    spec: Factorization | Logistic, arrays: BatchArrays | None, key: tuple[int, int], *, whole: bool
) -> Batch:
    """Return a mini-batch in tensors; one without rows where there are no arrays."""
    if arrays is None:
        none, ids = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        return Batch(key, 0, (ids, ids), (ids, ids), none, ids)
    starts = _tensor(arrays.starts, np.int64)
    local = _tensor(arrays.local, np.int64)
    if isinstance(arrays, RatingsArrays):
        assert isinstance(spec, Factorization)
        rows = _tensor(arrays.users, np.int64), _tensor(arrays.items, np.int64)
        places = torch.repeat_interleave(starts.diff()), local
        targets = torch.from_numpy((arrays.ratings - np.float32(spec.centre)) / np.float32(spec.deviation))
        values = weights = None
    else:
        rows = _tensor(arrays.features, np.int64), torch.zeros(1, dtype=torch.int64)
        places, targets = (local, rows[1]), _tensor(arrays.labels, np.float32)
        values, weights = (
            None if one is None else torch.from_numpy(one.copy()) for one in (arrays.values, arrays.weights)
        )
    if whole:
        places = rows[0][places[0]], rows[1][places[1]]
    return Batch(key, arrays.samples, rows, places, targets, starts[:-1], values, weights)


def losses_of(
    spec: Factorization | Logistic, tables: Sequence[Tensor], batch: Batch, *, mean: bool
) -> tuple[Tensor, Tensor]:
    """Return the sum of losses, in the units of ``Model.step``, and what the gradient is to be of."""
    if isinstance(spec, Factorization):
        p, q = (functional.embedding(*one) for one in zip(batch.places, tables, strict=True))
        error = batch.targets - ((p[:, :-1] * q[:, :-1]).sum(1) + p[:, -1] + q[:, -1])
        squares = error.square().sum()
        pulled = squares + spec.l2 * (p.square().sum() + q.square().sum()) if spec.l2 else squares
        return squares * spec.deviation**2, pulled / max(1, batch.samples) if mean else pulled / 2
    margins = functional.embedding_bag(
        batch.places[0], tables[0], batch.starts, mode="sum", per_sample_weights=batch.values
    )
    margins = margins[:, 0] + tables[1].sum()
    losses = functional.binary_cross_entropy_with_logits(
        margins, batch.targets, weight=batch.weights, reduction="sum"
    )
    return losses, losses / max(1, batch.samples)
