"""What scikit-learn asks of an estimator, and what it offers to one."""

from __future__ import annotations

import io
import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

import mlless

REPEATS = (
    "a repeated row takes part in several mini-batches, a weighted one in one of them with a larger "
    "gradient: the optimum is the same, a stochastic method's way there is not, and the check asks for 1e-7"
)
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": REPEATS,
    "check_sample_weight_equivalence_on_sparse_data": REPEATS,
}


@parametrize_with_checks(
    [mlless.LogisticRegression()], expected_failed_checks=lambda estimator: EXPECTED_FAILURES
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_weights_and_repetitions_have_the_same_optimum(labelled):
    X, y = labelled
    weights = np.random.default_rng(5).integers(0, 4, len(y))
    weighted = mlless.LogisticRegression(random_state=0).fit(X, y, sample_weight=weights)
    repeated = mlless.LogisticRegression(random_state=0).fit(X.repeat(weights, axis=0), y.repeat(weights))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=0.02)


def test_grid_search(labelled):
    X, y = labelled
    grid = GridSearchCV(
        mlless.LogisticRegression(random_state=0, max_iter=100), {"l2": [0.001, 0.01, 10.0]}, cv=3
    ).fit(X, y)
    assert grid.best_params_["l2"] < 10
    assert grid.best_score_ > 0.8


def test_cross_validation_of_both(labelled, pairs):
    clicks = cross_val_score(mlless.LogisticRegression(random_state=0, max_iter=100), *labelled, cv=3)
    assert clicks.mean() > 0.8
    ratings = cross_val_score(mlless.MatrixFactorization(random_state=0), *pairs, cv=3)
    assert ratings.mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [2])
def test_search_in_several_processes(labelled, jobs):
    scores = cross_val_score(
        mlless.LogisticRegression(random_state=0, max_iter=50), *labelled, cv=2, n_jobs=jobs
    )
    assert scores.mean() > 0.8


@pytest.mark.parametrize("kind", [mlless.LogisticRegression, mlless.MatrixFactorization])
def test_clone_keeps_parameters_and_forgets_the_model(kind, labelled, pairs):
    estimator = kind(l2=0.01, max_iter=3, random_state=1)
    estimator.fit(*(labelled if kind is mlless.LogisticRegression else pairs))
    other = clone(estimator)
    assert other.get_params() == estimator.get_params()
    assert not hasattr(other, "n_steps_")


def test_kinds():
    assert is_classifier(mlless.LogisticRegression())
    assert is_regressor(mlless.MatrixFactorization())


def test_pickles_predict_and_go_on_alike(labelled, pairs):
    for estimator, (X, y) in (
        (mlless.LogisticRegression(random_state=0, max_iter=20), labelled),
        (mlless.MatrixFactorization(random_state=0), pairs),
    ):
        estimator.fit(X, y)
        file = io.BytesIO()
        joblib.dump(estimator, file)
        file.seek(0)
        other = joblib.load(file)
        np.testing.assert_array_equal(other.predict(X), estimator.predict(X))
        other.partial_fit(X, y)
        estimator.partial_fit(X, y)
        np.testing.assert_array_equal(other.predict(X), estimator.predict(X))
        assert other.n_steps_ == estimator.n_steps_


def test_multiclass_is_refused_with_the_way_out():
    X, y = np.random.default_rng(0).normal(size=(90, 2)), np.repeat([0, 1, 2], 30)
    X[:, 0] += y
    with pytest.raises(ValueError, match=r"Only binary classification.*OneVsRestClassifier"):
        mlless.LogisticRegression().fit(X, y)
    wrapped = OneVsRestClassifier(mlless.LogisticRegression(random_state=0, max_iter=100)).fit(X, y)
    assert wrapped.score(X, y) > 0.4


def test_the_package_itself_does_not_need_scikit_learn():
    code = "import sys, mlless, mlless.driver; print('sklearn' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_what_is_missing_without_scikit_learn_is_said():
    code = "import sys; sys.modules['sklearn'] = None\nimport mlless\nmlless.LogisticRegression"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'mlless[sklearn]'" in done.stderr
