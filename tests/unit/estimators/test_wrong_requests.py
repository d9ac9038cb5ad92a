"""Requests that cannot be meant as they stand: a clear ValueError, or what was meant."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

import mlless
from mlless.data.dataset import Dataset


@pytest.fixture(scope="module")
def table() -> tuple[pandas.DataFrame, np.ndarray]:
    random = np.random.default_rng(0)
    users, items = np.divmod(random.choice(50 * 30, 1100, replace=False), 30)
    return pandas.DataFrame({"user": users, "item": items}), random.integers(1, 6, 1100).astype(float)


def test_columns_are_known_by_their_names(table: tuple[pandas.DataFrame, np.ndarray]) -> None:
    frame, ratings = table
    model = mlless.MatrixFactorization(random_state=0, max_iter=2).fit(frame, ratings)
    swapped = frame[["item", "user"]]
    np.testing.assert_array_equal(model.predict(swapped), model.predict(frame))
    assert len(mlless.MatrixFactorization(max_iter=1).fit(swapped, ratings).users_) == len(model.users_) == 50


def test_targets_beside_a_data_set_are_refused(ratings: Dataset, clicks: Dataset) -> None:
    for estimator, dataset in (
        (mlless.MatrixFactorization(max_iter=1), ratings),
        (mlless.LogisticRegression(max_iter=1), clicks),
    ):
        with pytest.raises(ValueError, match="leave y out"):
            estimator.fit(dataset, [1, 2])


def test_a_share_that_leaves_nothing_to_train_on_is_refused(
    table: tuple[pandas.DataFrame, np.ndarray],
) -> None:
    frame, ratings = table
    with pytest.raises(ValueError, match=r"n_samples=1100 and validation_fraction=0\.9999, nothing is left"):
        mlless.MatrixFactorization(validation_fraction=0.9999).fit(frame, ratings)


@pytest.mark.parametrize("n", [0, 2.5, "3", True])
def test_how_many_to_recommend_is_a_whole_number(
    n: object, table: tuple[pandas.DataFrame, np.ndarray]
) -> None:
    model = mlless.MatrixFactorization(max_iter=1).fit(*table)
    with pytest.raises(ValueError, match="number of recommendations must be a whole number"):
        model.recommend([0], n=n)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="users must be one id or a sequence"):
        model.recommend([[0, 1]])
