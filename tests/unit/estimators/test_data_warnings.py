"""What fits say of data from which little can be learnt: a warning each, and nothing of parts of data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import mlless
from mlless.data.partition import partition
from mlless.estimators import DataWarning


def told(fit) -> list[str]:
    """Return what a fit warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit()
    assert all(issubclass(one.category, DataWarning) for one in caught)
    return [str(one.message) for one in caught]


def test_ratings(pairs):
    X, y = np.concatenate([pairs.X, pairs.X[:7]]), np.concatenate([pairs.y, pairs.y[:7]])
    model = mlless.MatrixFactorization(max_iter=1, refit=False)
    assert told(lambda: model.fit(*pairs)) == []
    (repeats,) = told(lambda: model.fit(X, y))
    assert repeats.startswith("7 of 4,007 ratings repeat a pair of user and item, one pair is there 2 times")
    assert told(lambda: model.partial_fit(X, y)) == []


def test_equal_ratings_are_told_and_predicted(pairs):
    model = mlless.MatrixFactorization(max_iter=1)
    (equal,) = told(lambda: model.fit(pairs.X, np.full(len(pairs.y), 2.5)))
    assert equal.startswith("all 4,000 ratings are 2.5")
    np.testing.assert_array_equal(model.predict(pairs.X[:50]), 2.5)


def test_clicks_of_nearly_one_class():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(6000, 3)), np.arange(6000) % 500 == 0
    lopsided, held_out = told(lambda: mlless.LogisticRegression(max_iter=1).fit(X, y))
    assert lopsided.startswith("99.8% of the rows are of one label: judge the model by auc")
    assert "rows are there to judge a model by" in held_out or "of one label: auc has no value" in held_out


def test_a_data_set_says_the_same_and_one_of_one_class_is_refused(tmp_path):
    source = tmp_path / "c.svm"
    source.write_text("1 1:1\n0 2:1\n" * 40)
    data = partition(source, tmp_path / "data")
    model = mlless.LogisticRegression(max_iter=1)
    assert told(lambda: model.fit(data)) == [note.text for note in data.manifest.notes] != []
    source.write_text("1 1:1\n" * 40)
    one_class = partition(source, tmp_path / "test", like=data.location)
    with pytest.raises(ValueError, match=r"only one class.*found 40 rows, all of label 1"):
        model.fit(one_class)
    assert told(lambda: model.fit(data).partial_fit(one_class)) == [note.text for note in data.manifest.notes]
