"""LogisticRegression: what it takes, what it finds, how it goes on."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import sklearn
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression as Exact

import mlless
from mlless.recipes import clicks_l2

sklearn_version = tuple(map(int, sklearn.__version__.split(".")[:2]))


def objective(weights, intercept, X, y, l2):
    margins = X @ weights + intercept
    """Return what both minimise."""
    return np.mean(np.logaddexp(0, -(2 * y - 1) * margins)) + l2 / 2 * (weights @ weights)


@pytest.mark.parametrize("rows", [50, 400, 3000])
def test_as_good_as_an_exact_solver_on_small_data(rows):
    X, y = make_classification(rows, 10, n_informative=5, flip_y=0.1, random_state=0)
    l2 = clicks_l2(rows)
    exact = Exact(C=1 / (l2 * rows), max_iter=10_000).fit(X, y)
    ours = mlless.LogisticRegression(random_state=0).fit(X, y)
    best = objective(exact.coef_[0], exact.intercept_[0], X, y, l2)
    found = objective(ours.coef_[0].astype(float), ours.intercept_[0], X, y, l2)
    assert found <= best * 1.002
    assert ours.score(X, y) >= exact.score(X, y) - 0.015


def test_every_form_of_the_same_rows_gives_the_same_model(labelled):
    X, y = labelled
    X = X * (X > 0)
    csr = scipy.sparse.csr_matrix(X)
    wide = scipy.sparse.csr_array(
        (csr.data, csr.indices.astype(np.int64), csr.indptr.astype(np.int64)), shape=csr.shape
    )
    names = [f"f{n}" for n in range(X.shape[1])]
    forms = [X, csr, scipy.sparse.csr_array(X), wide, pd.DataFrame(X, columns=names), pl.DataFrame(X, names)]
    models = [mlless.LogisticRegression(random_state=0, max_iter=20).fit(form, y) for form in forms]
    for model, form in zip(models, forms, strict=True):
        np.testing.assert_array_equal(model.coef_, models[0].coef_)
        np.testing.assert_allclose(model.predict_proba(form), models[0].predict_proba(X), rtol=1e-12)
    assert models[4].feature_names_in_.tolist() == names
    if sklearn_version >= (1, 9):  # before, scikit-learn asks Polars for its names in a way that is gone
        assert models[5].feature_names_in_.tolist() == names


def test_labels_come_back_as_they_were(labelled):
    X, y = labelled
    names = np.where(y == 1, "yes", "no")
    model = mlless.LogisticRegression(random_state=0, max_iter=50).fit(X, names)
    assert model.classes_.tolist() == ["no", "yes"]
    assert set(model.predict(X)) == {"no", "yes"}
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))


def test_same_model_as_the_command_line_bit_for_bit(clicks, tmp_path):
    run = mlless.train(clicks.location, out=tmp_path / "run", workers=1, seed=5)
    model = mlless.LogisticRegression(random_state=5).fit(clicks)
    np.testing.assert_array_equal(model.coef_[0], run.model().artifact.tables["features"][:, 0])
    assert model.heldout_ == run.summary.heldout
    assert model.stop_reason_ == run.summary.stop_reason
    assert model.n_steps_ == run.summary.steps - 1  # a run's last step only scores the model
    assert model.classes_.tolist() == [0, 1]


def test_worker_processes(labelled):
    X, y = labelled
    model = mlless.LogisticRegression(workers=2, random_state=0, max_iter=30).fit(X, y)
    assert model.score(X, y) > 0.8
    assert model.n_iter_ == 30
    again = mlless.LogisticRegression(workers=2, random_state=0, max_iter=30).fit(X, y)
    np.testing.assert_array_equal(model.coef_, again.coef_)
    steps = model.n_steps_
    assert model.partial_fit(X, y).n_steps_ > steps
    assert model.score(X, y) > 0.8


def test_more_workers_than_groups_is_a_value_error(labelled):
    with pytest.raises(ValueError, match="more workers than groups of rows"):
        mlless.LogisticRegression(workers=50).fit(*labelled)


def test_learning_in_parts_counts_steps_on(labelled):
    X, y = labelled
    model = mlless.LogisticRegression(random_state=0)
    steps = [0]
    for _ in range(40):
        for part in np.array_split(np.arange(len(y)), 4):
            model.partial_fit(X[part], y[part], classes=[0, 1])
            steps.append(model.n_steps_)
    assert (np.diff(steps) > 0).all()
    assert model.score(X, y) > 0.8


def test_a_part_may_lack_a_class_that_was_named(labelled):
    X, y = labelled
    model = mlless.LogisticRegression(random_state=0).partial_fit(X[y == 1], y[y == 1], classes=[0, 1])
    assert model.partial_fit(X, y).classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="not there at the start"):
        model.partial_fit(X, y + 1)


def test_warm_start_goes_on_where_fit_ended(labelled):
    X, y = labelled
    cold = mlless.LogisticRegression(random_state=0, max_iter=5).fit(X, y)
    warm = mlless.LogisticRegression(random_state=0, max_iter=5, warm_start=True).fit(X, y)
    np.testing.assert_array_equal(warm.coef_, cold.coef_)
    steps = warm.n_steps_
    warm.fit(X, y)
    assert warm.n_steps_ == 2 * steps
    assert not np.array_equal(warm.coef_, cold.coef_)
    np.testing.assert_array_equal(cold.fit(X, y).coef_, cold.fit(X, y).coef_)


def test_equal_weights_change_nothing_but_the_pull(labelled):
    X, y = labelled
    plain = mlless.LogisticRegression(random_state=0, max_iter=10, l2=0.01).fit(X, y)
    twice = mlless.LogisticRegression(random_state=0, max_iter=10, l2=0.01).fit(X, y, np.full(len(y), 2.0))
    np.testing.assert_array_equal(plain.coef_, twice.coef_)


def test_rows_of_weight_zero_do_not_count(labelled):
    X, y = labelled
    weights = np.ones(len(y))
    weights[::3] = 0
    part = weights > 0
    plain = mlless.LogisticRegression(random_state=0, max_iter=10).fit(X[part], y[part])
    weighted = mlless.LogisticRegression(random_state=0, max_iter=10).fit(X, y, weights)
    np.testing.assert_array_equal(plain.coef_, weighted.coef_)


def test_saved_without_pickle(labelled, tmp_path):
    X, y = labelled
    names = [f"f{n}" for n in range(X.shape[1])]
    frame, label = pd.DataFrame(X, columns=names), np.where(y == 1, "yes", "no")
    model = mlless.LogisticRegression(random_state=0, max_iter=10, l2=0.02).fit(frame, label)
    model.save(tmp_path / "model")
    loaded = mlless.LogisticRegression.load(tmp_path / "model")
    assert loaded.get_params() == model.get_params()
    np.testing.assert_array_equal(loaded.predict_proba(frame), model.predict_proba(frame))
    assert loaded.predict(frame).tolist() == model.predict(frame).tolist()
    assert loaded.feature_names_in_.tolist() == names
    np.testing.assert_array_equal(
        loaded.partial_fit(frame, label).coef_, model.partial_fit(frame, label).coef_
    )
    rows = scipy.sparse.csr_array(X)
    clicked = mlless.load(tmp_path / "model").predict_clicks(rows.indptr, rows.indices, rows.data)
    assert clicked.shape == (len(y),)


def test_a_run_of_the_command_line_loads_and_goes_on(clicks, tmp_path):
    run = mlless.train(clicks.location, out=tmp_path / "run", workers=2, epochs=3)
    model = mlless.LogisticRegression.load(run.folder)
    np.testing.assert_array_equal(model.coef_[0], run.model().artifact.tables["features"][:, 0])
    before = run.model().evaluate(clicks)["log_loss"]
    model.partial_fit(clicks)
    model.save(tmp_path / "after")
    assert mlless.evaluate(tmp_path / "after", clicks.location)["log_loss"] < before + 0.01
    with pytest.raises(ValueError, match="needs a model of kind mf"):
        mlless.MatrixFactorization.load(run.folder)


def test_parameters_may_be_numpy_scalars(labelled, tmp_path):
    X, y = labelled
    grid = {
        "l2": np.float64(0.01),
        "max_iter": np.int64(3),
        "batch_size": np.int64(40),
        "validation_fraction": np.float32(0),
    }
    model = mlless.LogisticRegression(**grid, workers=np.int64(2), random_state=np.int64(4)).fit(X, y)
    model.save(tmp_path)
    loaded = mlless.LogisticRegression.load(tmp_path)
    assert loaded.get_params() == model.get_params()


def test_unscaled_data_that_diverges_says_so():
    X, y = make_classification(200, 5, random_state=0)
    with pytest.warns(ConvergenceWarning, match="scale the data"):
        model = mlless.LogisticRegression(random_state=0).fit(X * 1e5, y)
    assert np.isfinite(model.coef_).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert np.isfinite(model.partial_fit(X, y).coef_).all()


def test_what_cannot_be_done_is_said(labelled, ratings):
    X, y = labelled
    with pytest.raises(NotFittedError):
        mlless.LogisticRegression().predict(X)
    for parameters, message in (
        ({"max_iter": 0}, "'max_iter' parameter of LogisticRegression must be an int in the range"),
        ({"max_iter": "3"}, "'max_iter' parameter"),
        ({"n_iter_no_change": 0}, "'n_iter_no_change' parameter"),
        ({"tol": -1.0}, "'tol' parameter"),
        ({"validation_fraction": 1.0}, "'validation_fraction' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"l2": -1.0}, "'l2' parameter"),
        ({"optimizer": "sgd"}, "'optimizer' parameter"),
        ({"workers": 0}, "'workers' parameter"),
        ({"workers": "all"}, "'workers' parameter"),
        ({"class_weight": "even"}, "'class_weight' parameter"),
        ({"class_weight": {0: -1}}, "class_weight must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            mlless.LogisticRegression(**parameters).fit(X, y)
    with pytest.raises(ValueError, match="'max_iter' parameter"):
        mlless.LogisticRegression().partial_fit(X, y, max_iter=0)
    with pytest.raises(ValueError, match="needs clicks, found ratings"):
        mlless.LogisticRegression().fit(ratings)
    with pytest.raises(ValueError, match="float32"):
        mlless.LogisticRegression().fit(X * 1e300, y)
