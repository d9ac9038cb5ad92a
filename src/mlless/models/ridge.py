"""Users from their ratings and the items: where nobody is left who has trained them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mlless.kernels.arrays import RatingsArrays
from mlless.models.factorization import FactorizationModel
from mlless.replica import Replica

LEAST = 0.08  # of L2 for each rating: twice that of training, with which few ratings are fitted too well


def fit_users(model: FactorizationModel, replica: Replica, batch: RatingsArrays) -> None:
    """Set the users of a mini-batch, which has all their ratings, to what fits these best.

    That is ridge regression: the least squared errors plus L2, which pulls once a rating as in training.
    The optimizer's state of these users begins at zero.
    """
    spec, (users, items) = model.spec, replica.tables
    l2, bias = max(2 * spec.l2, LEAST) * np.eye(model.columns), model.columns - 1
    found = np.empty((len(batch.users), model.columns), np.float32)
    for number, (begin, end) in enumerate(pairwise(batch.starts.tolist())):
        rows = items.shared[batch.items[batch.local[begin:end]]].astype(np.float64)
        wanted = (batch.ratings[begin:end].astype(np.float64) - spec.centre) / spec.deviation - rows[:, bias]
        rows[:, bias] = 1.0
        found[number] = np.linalg.solve(rows.T @ rows + len(rows) * l2, rows.T @ wanted)
    users.restore(found, batch.users)
    users.state[batch.users] = 0
