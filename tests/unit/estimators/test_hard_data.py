"""Data and requests that lead training astray: nothing that was learnt is lost, and it is said."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import mlless

ABSURD = 1e9
doubtful = pytest.mark.filterwarnings("ignore::mlless.errors.DataWarning")


@doubtful
@pytest.mark.parametrize("seed", range(6))
def test_ratings_that_are_nearly_all_equal_do_not_diverge(seed):
    """The null loss is tiny, and a mini-batch without the few other ratings has hardly any."""
    random = np.random.default_rng(seed)
    X = np.column_stack([random.integers(0, 100, 1000), random.integers(0, 50, 1000)])
    y = np.full(1000, 5.0)
    y[random.choice(1000, 10, replace=False)] = random.integers(1, 5, 10)
    model = mlless.MatrixFactorization(random_state=seed).fit(X, y)  # a ConvergenceWarning is an error
    assert model.stop_reason_ in ("epochs", "patience")
    predicted = model.predict(X)
    assert np.median(predicted) == pytest.approx(5, abs=0.1)
    assert np.sqrt(np.mean((predicted - y) ** 2)) <= 1.05 * y.std()


@doubtful
@pytest.mark.parametrize("seed", range(4))
def test_clicks_that_are_rare_do_not_diverge(seed):
    random = np.random.default_rng(seed)
    X, y = random.normal(size=(2000, 20)), np.zeros(2000, int)
    y[random.choice(2000, 10, replace=False)] = 1
    model = mlless.LogisticRegression(random_state=seed).fit(X, y)
    assert model.predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), abs=0.002)


@doubtful
@pytest.mark.parametrize("equal", [3.0, 0.0, 1e-3])
def test_ratings_that_are_all_equal_are_predicted(equal):
    X = np.column_stack([np.arange(300) % 30, np.arange(300) % 20])
    model = mlless.MatrixFactorization(random_state=0).fit(X, np.full(300, equal))
    np.testing.assert_allclose(model.predict(X), equal, rtol=1e-6)


def residuals(model) -> float:
    """Return how much of a model is not where predictions, and files, look for it."""
    return max(float(np.abs(table.residual).max()) for table in model._course.replica.tables)


@pytest.mark.parametrize("optimizer", ["adagrad", "nesterov"])
@pytest.mark.parametrize("rate", [ABSURD, 1e30])
def test_a_part_that_leads_astray_leaves_the_ratings_model_as_it_was(pairs, optimizer, rate):
    X, y = pairs
    usual = None if optimizer == "adagrad" else 0.5
    model = mlless.MatrixFactorization(random_state=0, optimizer=optimizer, learning_rate=usual).fit(X, y)
    before, score = model.predict(X), model.score(X, y)
    with pytest.warns(ConvergenceWarning, match="diverged"):
        model.set_params(learning_rate=rate).partial_fit(X, y, max_iter=3)
    assert model.stop_reason_ == "diverged"
    np.testing.assert_array_equal(model.predict(X), before)
    assert residuals(model) == 0
    model.set_params(learning_rate=usual).partial_fit(X, y)  # and it goes on well
    assert model.score(X, y) > score - 0.05


@pytest.mark.parametrize("optimizer", ["adagrad", "nesterov"])
@pytest.mark.parametrize("rate", [ABSURD, 1e30])
def test_a_part_that_leads_astray_leaves_the_clicks_model_as_it_was(labelled, optimizer, rate):
    X, y = labelled
    model = mlless.LogisticRegression(random_state=0, optimizer=optimizer, max_iter=50).fit(X, y)
    before = model.predict_proba(X)
    with pytest.warns(ConvergenceWarning, match="diverged"):
        model.set_params(learning_rate=rate).partial_fit(X, y, max_iter=3)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert residuals(model) == 0
    model.set_params(learning_rate=None).partial_fit(X, y)
    assert model.score(X, y) > 0.8


def test_a_warm_start_that_leads_astray_keeps_the_model(pairs):
    X, y = pairs
    model = mlless.MatrixFactorization(random_state=0, warm_start=True).fit(X, y)
    before = model.predict(X)
    with pytest.warns(ConvergenceWarning, match="diverged"):
        model.set_params(learning_rate=ABSURD).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), before)


def test_new_users_of_a_part_that_leads_astray_are_strangers_still(pairs):
    X, y = pairs
    early = X[:, 0] < 500
    model = mlless.MatrixFactorization(random_state=0).partial_fit(X[early], y[early])
    before = model.predict(X[early])
    with pytest.warns(ConvergenceWarning):
        model.set_params(learning_rate=ABSURD).partial_fit(X[~early], y[~early])
    np.testing.assert_array_equal(model.predict(X[early]), before)
    late = model.predict(X[~early])
    assert np.isfinite(late).all()
    _, ratings = model.recommend([int(X[~early][0, 0])], n=3)
    assert np.isfinite(ratings).all()


def test_a_fit_that_diverges_from_the_start_is_finite(pairs, labelled):
    for estimator, (X, y) in (
        (mlless.MatrixFactorization(random_state=0, learning_rate=1e30), pairs),
        (mlless.LogisticRegression(random_state=0, learning_rate=1e30), labelled),
    ):
        with pytest.warns(ConvergenceWarning, match="diverged") as told:
            estimator.fit(X, y)
        assert np.isfinite(estimator.predict(X)).all()
        assert told[0].filename == __file__  # whoever called fit
        assert estimator.n_iter_ >= 1
        assert len(estimator.loss_curve_) >= 1
