"""What the estimators may be asked for, and what a fit tells of itself: as scikit-learn's own do."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

import mlless

BOTH = [mlless.LogisticRegression, mlless.MatrixFactorization]


@pytest.mark.parametrize("kind", BOTH)
def test_every_parameter_is_described(kind):
    assert not set(kind._words) & set(re.findall(r"{(\w+)", kind.__doc__))
    assert "{parameters}" not in kind.__doc__
    assert "{attributes}" not in kind.__doc__
    described = kind.__doc__.partition("Attributes\n")[0]
    for name in kind().get_params():
        assert name in described


def test_a_gain_below_tol_does_not_count(pairs):
    estimator = mlless.MatrixFactorization(random_state=0, max_iter=20, n_iter_no_change=2, refit=False)
    assert estimator.fit(*pairs).n_iter_ > 2
    estimator.set_params(tol=10.0).fit(*pairs)  # no epoch gains 10 rating units
    assert (estimator.n_iter_, estimator.stop_reason_) == (2, "patience")


def test_what_does_nothing_is_said(pairs, ratings):
    with pytest.warns(UserWarning, match="tol has no effect") as told:
        mlless.MatrixFactorization(max_iter=2, tol=0.1).fit(*pairs)
    assert [one.filename for one in told] == [__file__]
    mlless.MatrixFactorization(max_iter=2, tol=0.1, n_iter_no_change=1).fit(*pairs)
    mlless.MatrixFactorization(tol=0.1).partial_fit(*pairs)  # takes the epochs that it says
    with pytest.warns(UserWarning, match="validation_fraction has no effect on a data set"):
        mlless.MatrixFactorization(max_iter=1, batch_size=9, validation_fraction=0.3).fit(ratings)


def test_the_curves_are_those_of_the_epochs(pairs):
    heard = []
    model = mlless.MatrixFactorization(random_state=0, max_iter=5, refit=False, callbacks=[heard.append]).fit(
        *pairs
    )
    assert len(model.loss_curve_) == len(model.validation_scores_) == model.n_iter_ == 5
    assert model.loss_curve_ == sorted(model.loss_curve_, reverse=True)
    assert model.validation_scores_ == [-record.heldout["rmse"] for record in heard]
    assert model.best_validation_score_ == max(model.validation_scores_) == -model.heldout_["rmse"]


def test_a_fit_that_ends_early_has_a_point_for_each_epoch(pairs):
    model = mlless.MatrixFactorization(
        random_state=0, max_iter=30, n_iter_no_change=2, l2=0.0, learning_rate=0.5, refit=False
    ).fit(*pairs)
    assert model.stop_reason_ == "patience"
    assert len(model.loss_curve_) == len(model.validation_scores_) == model.n_iter_ < 30
    assert model.best_validation_score_ == pytest.approx(max(model.validation_scores_))


def test_the_last_epoch_is_not_taken_for_the_one_that_is_kept(pairs, tmp_path):
    X, y = pairs
    model = mlless.MatrixFactorization(random_state=0, l2=0.0, learning_rate=0.5, max_iter=12).fit(X, y)
    scores = model.validation_scores_
    best = int(np.argmax(scores))
    assert best < 10  # it overfits
    assert len(scores) == 12
    assert scores[-1] < scores[best]
    assert model.best_validation_score_ == pytest.approx(scores[best])
    model.save(tmp_path)
    loaded = mlless.MatrixFactorization.load(tmp_path)
    np.testing.assert_array_equal(loaded.validation_scores_, scores)
    assert loaded.loss_curve_ == model.loss_curve_


def test_without_held_out_rows_there_are_no_scores(labelled):
    model = mlless.LogisticRegression(random_state=0, max_iter=3).fit(*labelled)
    assert len(model.loss_curve_) == 3
    assert model.validation_scores_ is model.best_validation_score_ is None
    assert model.heldout_ == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_verbose_prints_a_line_an_epoch(pairs, capsys, workers):
    model = mlless.MatrixFactorization(random_state=0, max_iter=3, workers=workers, verbose=1).fit(*pairs)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert (
        lines[-1] == f"epoch 3: training loss {model.loss_curve_[-1]:.6g}, rmse {model.heldout_['rmse']:.6g}"
    )
    mlless.MatrixFactorization(max_iter=1).fit(*pairs)
    assert capsys.readouterr().out == ""


def test_one_worker_suits_any_data_here(pairs):
    def workers(asked):
        heard = []
        mlless.MatrixFactorization(workers=asked, max_iter=1, callbacks=[heard.append]).fit(*pairs)
        return heard[-1].workers

    assert workers("auto") == workers(1) == 1
    assert workers(2) == 2


def test_a_refit_is_of_all_rows_for_the_best_number_of_epochs(pairs):
    X, y = pairs
    watched, refitted = (
        mlless.MatrixFactorization(
            random_state=0, l2=0.0, learning_rate=0.5, max_iter=12, batch_size=100, refit=refit
        ).fit(X, y)
        for refit in (False, True)
    )
    assert refitted.heldout_ == watched.heldout_
    assert refitted.loss_curve_ == watched.loss_curve_
    assert watched.n_iter_ == 12
    assert refitted.n_iter_ == np.nanargmax(watched.validation_scores_) + 1
    assert refitted.n_steps_ == refitted.n_iter_ * (len(y) / 100) + 1  # the last one settles what is pending
    assert refitted.score(X, y) > watched.score(X, y)


@pytest.mark.parametrize("weights", ["balanced", {0: 3.0}, {0: 0.25, 1: 4.0}])
def test_a_class_weight_is_that_of_its_rows(labelled, weights):
    X, y = labelled
    by_class = mlless.LogisticRegression(random_state=0, max_iter=20, class_weight=weights).fit(X, y)
    by_row = mlless.LogisticRegression(random_state=0, max_iter=20).fit(
        X, y, compute_sample_weight(weights, y)
    )
    np.testing.assert_array_equal(by_class.coef_, by_row.coef_)
    assert by_class.predict(X).mean() != mlless.LogisticRegression(random_state=0).fit(X, y).predict(X).mean()


def test_class_weights_have_the_names_of_the_classes(labelled, tmp_path):
    X, y = labelled
    named = mlless.LogisticRegression(random_state=0, max_iter=20, class_weight={"yes": 5.0})
    numbered = mlless.LogisticRegression(random_state=0, max_iter=20, class_weight={1: 5.0})
    named.fit(X, np.where(y == 1, "yes", "no"))
    np.testing.assert_array_equal(named.coef_, numbered.fit(X, y).coef_)
    for model in (named, numbered):
        model.save(tmp_path)
        assert mlless.LogisticRegression.load(tmp_path).get_params() == model.get_params()


def test_where_class_weights_cannot_be_had(labelled, clicks):
    with pytest.raises(ValueError, match="not for a data set"):
        mlless.LogisticRegression(class_weight="balanced").fit(clicks)
    with pytest.raises(ValueError, match="not supported for partial_fit"):
        mlless.LogisticRegression(class_weight="balanced").partial_fit(*labelled)
    weighted = mlless.LogisticRegression(class_weight={1: 9.0}, random_state=0).partial_fit(
        *labelled, max_iter=30
    )
    assert weighted.predict(labelled[0]).mean() > 0.7
