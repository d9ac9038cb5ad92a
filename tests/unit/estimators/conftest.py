"""Small data for the estimators: clicks as arrays, ratings as pairs, both with something to learn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("sklearn", reason="the estimators need scikit-learn")


class Pairs(NamedTuple):
    """Ratings as the estimators take them."""

    X: NDArray[np.int64]
    y: NDArray[np.float64]


@pytest.fixture(scope="session")
def labelled() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """400 rows of 8 features with labels that follow a noisy linear rule."""
    random = np.random.default_rng(3)
    X = random.normal(size=(400, 8))
    margin = X @ np.array([2.0, -1.5, 1.0, 0.5, 0, 0, 0, 0]) + 0.5 + random.logistic(size=400)
    return X, (margin > 0).astype(np.int64)


@pytest.fixture(scope="session")
def pairs() -> Pairs:
    """4,000 ratings on a scale from 1 to 5 of 50 items by 120 users; ids have gaps."""
    random = np.random.default_rng(4)
    p, q = random.normal(0, 1, (120, 3)), random.normal(0, 1, (50, 3))
    cells = random.choice(120 * 50, 4000, replace=False)
    users, items = np.divmod(cells, 50)
    scores = 3 + 0.6 * (p[users] * q[items]).sum(axis=1) + random.normal(0, 0.3, 4000)
    return Pairs(np.column_stack([users * 7 + 1, items * 3 + 2]), np.clip(np.round(scores * 2) / 2, 1, 5))


def rmse(estimator: object, pairs: Pairs) -> float:
    """Return the root mean squared error of an estimator's predictions."""
    return float(np.sqrt(np.mean((estimator.predict(pairs.X) - pairs.y) ** 2)))  # type: ignore[attr-defined]
