"""Users from their ratings and the items: where nobody is left who has trained them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mlless.kernels.arrays import RatingsArrays
from mlless.models.factorization import FactorizationModel
from mlless.replica import Replica

PULL = 10.0  # of a user to zero, beside L2 for each rating: as measured, so that training goes on as before


def fit_users(model: FactorizationModel, replica: Replica, batch: RatingsArrays, passes: float) -> None:
    """Set the users of a mini-batch, which has all their ratings, to what fits these best.

    That is ridge regression: the least squared errors plus L2 once a rating, as in training, and ``PULL``.
    Adagrad's state becomes what so many ``passes`` over these ratings would have summed there, each rating
    being a mini-batch of its own. From a state of zero the next steps would be as large as the first ones.
    """
    spec, (users, items) = model.spec, replica.tables
    eye, bias = np.eye(model.columns), model.columns - 1
    found, states = np.empty((2, len(batch.users), model.columns), np.float32)
    for number, (begin, end) in enumerate(pairwise(batch.starts.tolist())):
        rows = items.shared[batch.items[batch.local[begin:end]]].astype(np.float64)
        wanted = (batch.ratings[begin:end].astype(np.float64) - spec.centre) / spec.deviation - rows[:, bias]
        rows[:, bias] = 1.0
        user = np.linalg.solve(rows.T @ rows + (PULL + spec.l2 * len(rows)) * eye, rows.T @ wanted)
        gradients = (rows @ user - wanted)[:, None] * rows + spec.l2 * user
        found[number], states[number] = user, passes * (gradients**2).sum(axis=0)
    users.restore(found, batch.users)
    users.state[batch.users] = states
