"""Users from their ratings and the items: where nobody is left who has trained them."""

from __future__ import annotations

import numpy as np

from mlless.kernels.arrays import RatingsArrays
from mlless.models.factorization import FactorizationModel
from mlless.replica import Replica

LEAST = 0.08  # of L2 for each rating: twice that of training, with which few ratings are fitted too well
_RATINGS = 1 << 10  # taken at a time


def fit_users(model: FactorizationModel, replica: Replica, batch: RatingsArrays) -> None:
    """Set the users of a mini-batch, which has all their ratings, to what fits these best.

    That is ridge regression: the least squared errors plus L2, which pulls once a rating as in training.
    The optimizer's state of these users begins at zero.
    """
    eye = np.eye(model.columns, dtype=np.float64)
    spec, (users, items) = model.spec, replica.tables
    l2, bias = max(2 * spec.l2, LEAST), model.columns - 1
    counts = np.diff(batch.starts.astype(np.int64))
    squares = np.zeros((len(counts), model.columns, model.columns))
    products = np.zeros((len(counts), model.columns))
    for begin in range(0, len(batch.ratings), _RATINGS):
        part = slice(begin, begin + _RATINGS)
        rows = items.shared[batch.items[batch.local[part]]].astype(np.float64)
        wanted = (batch.ratings[part].astype(np.float64) - spec.centre) / spec.deviation - rows[:, bias]
        rows[:, bias] = 1.0
        user = np.searchsorted(batch.starts, np.arange(begin, begin + len(wanted)), side="right") - 1
        first = np.flatnonzero(np.diff(user, prepend=-1))
        squares[user[first]] += np.add.reduceat(rows[:, :, None] * rows[:, None, :], first)
        products[user[first]] += np.add.reduceat(rows * wanted[:, None], first)
    squares += (l2 * counts.astype(np.float64))[:, None, None] * eye
    found = np.linalg.solve(squares, products[:, :, None])[:, :, 0]
    users.restore(found.astype(np.float32), batch.users)
    users.state[batch.users] = 0
