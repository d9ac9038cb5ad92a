"""Scores a replica on held-out mini-batches."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mlless.clock import Clock
from mlless.data.batches import Batch
from mlless.kernels.arrays import Floats
from mlless.messages import Sums
from mlless.models import Model
from mlless.models.base import add
from mlless.replica import Replica


def score_heldout(
    model: Model, replica: Replica, batches: Iterable[Batch], clock: Clock
) -> tuple[Sums, Floats, Floats]:
    """Return the held-out sums of ``shared`` over ``batches``, with targets and scores."""
    total, targets, scores = None, [], []
    for batch in batches:
        sums, target, score = model.evaluate(replica, batch.arrays)
        total = sums if total is None else add(total, sums)
        targets.append(target)
        scores.append(score)
        clock.work("evaluate", sums.samples)
    if total is None:
        return Sums(0, 0.0), np.empty(0, np.float32), np.empty(0, np.float32)
    return total, np.concatenate(targets), np.concatenate(scores)
