"""MatrixFactorization: what it takes, what it finds, what it recommends, how it goes on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score

import mlless
from mlless.data.memory import store_dataset
from mlless.estimators.pairs import ratings_in


def rmse(model, X, y):
    return float(np.sqrt(np.mean((model.predict(X) - y) ** 2)))


@pytest.fixture(scope="module")
def fitted(pairs):
    return mlless.MatrixFactorization(random_state=0).fit(*pairs)


def test_finds_what_is_there(pairs):
    X, y = pairs
    held = np.arange(len(y)) % 5 == 0
    model = mlless.MatrixFactorization(random_state=0).fit(X[~held], y[~held])
    assert rmse(model, X[held], y[held]) < 0.6 * y[held].std()
    assert model.score(X[held], y[held]) == pytest.approx(r2_score(y[held], model.predict(X[held])))
    assert model.heldout_["rmse"] == pytest.approx(rmse(model, X[held], y[held]), rel=0.2)


def test_every_form_of_the_same_ratings_gives_the_same_model(pairs):
    X, y = pairs
    forms = [X, X.astype(float), pd.DataFrame(X, columns=["user", "item"]), pl.DataFrame(X, ["user", "item"])]
    models = [mlless.MatrixFactorization(random_state=0, max_iter=3).fit(form, y) for form in forms]
    for model, form in zip(models, forms, strict=True):
        np.testing.assert_array_equal(model.predict(form), models[0].predict(X))


@pytest.mark.parametrize("form", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_a_sparse_matrix_holds_its_ratings(pairs, form):
    X, y = pairs
    table = form((y, (X[:, 0], X[:, 1])))
    if form is scipy.sparse.csr_array:
        table.indices, table.indptr = table.indices.astype(np.int64), table.indptr.astype(np.int64)
    model = mlless.MatrixFactorization(random_state=0).fit(table)
    assert model.score(X, y) > 0.8
    with pytest.raises(ValueError, match="leave y out"):
        model.fit(table, y)


def test_rows_of_a_sparse_matrix_are_users_in_fit_alone(pairs):
    """A split of rows numbers users anew, whether or not the parts are of one size."""
    X, y = pairs
    table = scipy.sparse.csr_array((y, (X[:, 0], X[:, 1])))
    table = table[: len(table.indptr) // 2 * 2]
    model = mlless.MatrixFactorization(random_state=0, max_iter=2)
    with pytest.raises(ValueError, match=r"numbers them anew.*np\.column_stack"):
        cross_val_score(model, table, cv=2, error_score="raise")
    model.fit(table)
    for refused in (model.predict, model.score):
        with pytest.raises(ValueError, match=r"A sparse matrix is for fit alone"):
            refused(table)
    entries = table.tocoo()  # the way out that the message tells
    assert model.score(np.column_stack([entries.row, entries.col]), entries.data) > 0


def test_same_model_as_the_command_line_bit_for_bit(ratings, tmp_path):
    run = mlless.train(ratings.location, out=tmp_path / "run", workers=1, seed=5)
    model = mlless.MatrixFactorization(random_state=5).fit(ratings.location)
    tables = run.model().artifact.tables
    np.testing.assert_array_equal(model.user_factors_, tables["users"][:, :-1])
    np.testing.assert_array_equal(model.item_biases_, tables["items"][:, -1])
    assert model.heldout_ == run.summary.heldout
    model.save(tmp_path / "saved")
    assert mlless.evaluate(tmp_path / "saved", ratings.location) == mlless.evaluate(
        run.folder, ratings.location
    )


def test_worker_processes(pairs, ratings, fitted):
    X, y = pairs
    model = mlless.MatrixFactorization(workers=3, random_state=0).fit(X, y)
    assert rmse(model, X, y) == pytest.approx(rmse(fitted, X, y), rel=0.2)
    assert model.recommend([1]).__class__ is tuple
    there = mlless.MatrixFactorization(workers=2, random_state=0, max_iter=2).fit(ratings)
    assert there.n_iter_ == 2


def test_new_users_and_items_grow_the_tables(pairs):
    X, y = pairs
    early = X[:, 0] < 500
    model = mlless.MatrixFactorization(random_state=0).partial_fit(X[early], y[early])
    before = model.users_.copy()
    known, steps = rmse(model, X[early], y[early]), model.n_steps_
    late = ~early
    stranger = rmse(model, X[late], y[late])
    X_late = np.vstack([X[late], [[10**12, 10**15]]])
    model.partial_fit(X_late, np.append(y[late], 5.0))
    assert model.n_steps_ > steps
    np.testing.assert_array_equal(model.users_[: len(before)], before)
    assert set(model.users_) == {*X[:, 0].tolist(), 10**12}
    assert 10**15 in model.items_
    assert rmse(model, X[late], y[late]) < 0.6 * stranger
    assert rmse(model, X[early], y[early]) < 1.5 * known


def test_a_wider_scale_is_learnt_in_parts():
    X = np.column_stack([np.repeat(np.arange(20), 10), np.tile(np.arange(10), 20)])
    model = mlless.MatrixFactorization(random_state=0).partial_fit(X, np.full(200, 3.0))
    assert (model.scale_.low, model.scale_.high) == (3.0, 3.0)
    model.partial_fit(X, np.tile([2.0, 4.0], 100), max_iter=100)
    assert (model.scale_.low, model.scale_.high) == (2.0, 4.0)
    assert rmse(model, X, np.tile([2.0, 4.0], 100)) < 0.2


def test_warm_start_goes_on(pairs):
    X, y = pairs
    model = mlless.MatrixFactorization(random_state=0, max_iter=2, refit=False, warm_start=True).fit(X, y)
    steps, before = model.n_steps_, rmse(model, X, y)
    model.fit(X, y)
    assert model.n_steps_ == 2 * steps
    assert rmse(model, X, y) < before
    with pytest.raises(ValueError, match="factors is 7, but the model has 20"):
        model.set_params(factors=7).fit(X, y)
    assert model.set_params(warm_start=False).fit(X, y).item_factors_.shape[1] == 7


def best_by_hand(model, user, n, seen):
    row, items = model.users_.tolist().index(user), [item not in seen for item in model.items_.tolist()]
    scores = model.item_factors_[items] @ model.user_factors_[row] + model.item_biases_[items]
    scores = model.scale_.mean + model.scale_.deviation * (scores + model.user_biases_[row])
    return np.sort(scores)[::-1][:n]


def test_recommends_the_best_of_what_is_not_seen(pairs, fitted):
    X, _ = pairs
    users = np.unique(X[:, 0])
    items, ratings = fitted.recommend(users, n=5)
    assert items.shape == ratings.shape == (len(users), 5)
    for row, user in enumerate(users[:30]):
        seen = set(X[X[:, 0] == user, 1].tolist())
        best = best_by_hand(fitted, user, 5, seen)
        assert not seen & set(items[row].tolist())
        shown = ratings[row][~np.isnan(ratings[row])]
        np.testing.assert_allclose(shown, best, rtol=1e-5)
        assert (items[row][len(best) :] == -1).all()
    anything, _ = fitted.recommend(users, n=5, exclude_seen=False)
    assert (anything >= 0).all()


def test_what_was_rated_later_counts_as_seen_too(pairs):
    X, y = pairs
    half = len(y) // 2
    model = mlless.MatrixFactorization(random_state=0).partial_fit(X[:half], y[:half])
    model.partial_fit(X[half:], y[half:])
    items, _ = model.recommend(np.unique(X[:, 0]), n=50)
    pairs_seen = {(int(a), int(b)) for a, b in X}
    for user, row in zip(np.unique(X[:, 0]).tolist(), items.tolist(), strict=True):
        assert not any((user, item) in pairs_seen for item in row)


def test_strangers_get_what_is_best_for_everyone(fitted):
    items, scores = fitted.recommend([10**9], n=3)
    order = fitted.items_[np.argsort(-fitted.item_biases_)]
    assert items[0].tolist() == order[:3].tolist()
    scale = fitted.scale_
    expected = scale.mean + scale.deviation * np.sort(fitted.item_biases_)[::-1][:3]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5)
    assert fitted.predict([[10**9, 10**9]])[0] == pytest.approx(scale.mean)
    bias = scale.mean + scale.deviation * fitted.user_biases_[0]
    assert fitted.predict([[fitted.users_[0], 10**9]])[0] == pytest.approx(bias, rel=1e-5)


def test_predictions_stay_on_the_scale(pairs, fitted):
    predicted = fitted.predict(pairs.X)
    assert predicted.min() >= 1
    assert predicted.max() <= 5


def test_saved_without_pickle(pairs, fitted, tmp_path):
    X, y = pairs
    fitted.save(tmp_path / "model")
    loaded = mlless.MatrixFactorization.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(loaded.recommend([1, 8])[0], fitted.recommend([1, 8])[0])
    np.testing.assert_array_equal(mlless.load(tmp_path / "model").predict_ratings(*X.T), fitted.predict(X))
    again = mlless.MatrixFactorization(random_state=0).fit(X, y).partial_fit(X[:500], y[:500])
    np.testing.assert_array_equal(loaded.partial_fit(X[:500], y[:500]).predict(X), again.predict(X))
    assert loaded.n_steps_ == again.n_steps_


def test_a_run_of_the_command_line_loads_and_goes_on(ratings, tmp_path):
    run = mlless.train(ratings.location, out=tmp_path / "run", workers=2, epochs=4)
    model = mlless.MatrixFactorization.load(run.folder)
    before = model.score(ratings)
    assert model.partial_fit(ratings, max_iter=2).score(ratings) > before
    users, items, _ = ratings_in(ratings)
    best, _ = model.recommend(model.users_[:3], n=len(model.items_))
    for user, row in zip(model.users_[:3], best.tolist(), strict=True):
        assert set(row) == {-1} | set(model.items_.tolist()) - set(items[users == user].tolist())


def test_a_run_without_its_data_set_does_not_know_what_was_seen(ratings, tmp_path):
    data = store_dataset(ratings, tmp_path / "data")
    run = mlless.train(data.location, out=tmp_path / "run", workers=1, epochs=1)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    model = mlless.MatrixFactorization.load(run.folder)
    users, items, y = ratings_in(ratings)
    model.partial_fit(np.column_stack([users, items])[:200], y[:200])
    with pytest.raises(ValueError, match=r"no such folder.*exclude_seen=False"):
        model.recommend([1])
    assert model.recommend(model.users_[:2], exclude_seen=False)[0].shape == (2, 10)
    with pytest.warns(UserWarning, match="is not saved"):
        model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="exclude_seen=False"):
        mlless.MatrixFactorization.load(tmp_path / "model").recommend([1])
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    best, _ = model.recommend(model.users_[:1], n=len(model.items_))
    seen = set(items[users == model.users_[0]].tolist())
    assert set(best[0].tolist()) == {-1} | set(model.items_.tolist()) - seen


def test_what_cannot_be_done_is_said(pairs, clicks, fitted):
    X, y = pairs
    with pytest.raises(NotFittedError):
        mlless.MatrixFactorization().predict(X)
    for bad, message in (
        ((X[:, :1], y), "two columns"),
        ((X, None), "requires y"),
        ((X, y[1:]), "inconsistent numbers of samples"),
        ((X - 100, y), "from 0"),
        ((X + 0.5, y), "whole numbers"),
        ((np.where(X[7] == X, None, X), y), "one of the users is no id: .*found None"),
        ((X, np.full(len(y), np.nan)), "Input y contains NaN"),
        ((X, np.full(len(y), 1e300)), "beyond the range of float32"),
        ((X, np.full(len(y), "good")), "could not convert string to float"),
        ((X, np.column_stack([y, y])), "1d array"),
        ((X[:0], y[:0]), r"Found array with 0 sample\(s\)"),
        ((clicks, None), "needs ratings"),
    ):
        with pytest.raises(ValueError, match=message):
            mlless.MatrixFactorization().fit(*bad)
    with pytest.raises(ValueError, match="number of recommendations"):
        fitted.recommend([1], n=0)
    with pytest.raises(ValueError, match="factors"):
        mlless.MatrixFactorization(factors=0).fit(X, y)


def test_ids_may_be_text(pairs):
    X, y = pairs
    named = np.array([f"u{user}" for user in X[:, 0]]), np.array([f"i-{item}" for item in X[:, 1]], object)
    model = mlless.MatrixFactorization(max_time=60, random_state=0).fit(np.column_stack(named), y)
    assert model.users_.tolist() == sorted({f"u{user}" for user in X[:, 0]})
    items, _ = model.recommend(["u1", "nobody"], n=3)
    assert set(items.ravel().tolist()) <= set(model.items_.tolist())
    numbers = mlless.MatrixFactorization(max_time=60, random_state=0).fit(X.astype(str), y)
    np.testing.assert_array_equal(numbers.users_, np.unique(X[:, 0]))
    np.testing.assert_array_equal(numbers.predict(X.astype(str)), numbers.predict(X.astype(float)))


def test_columns_of_a_frame_are_those_of_the_fit(pairs):
    X, y = pairs
    frame = pd.DataFrame({"kunde": X[:, 0], "artikel": X[:, 1]})
    model = mlless.MatrixFactorization(max_time=60, random_state=0).fit(frame, y)
    np.testing.assert_array_equal(model.predict(frame), model.predict(X))
    with pytest.raises(ValueError, match=r"should match .*: expected kunde, artikel, found artikel, kunde"):
        model.predict(frame[["artikel", "kunde"]])
    with pytest.raises(ValueError, match="should match"):
        model.partial_fit(frame.rename(columns={"kunde": "customer"}), y)
    told = frame.set_axis(["userId", "movieId"], axis=1)
    known = mlless.MatrixFactorization(max_time=60, random_state=0).fit(told, y)
    np.testing.assert_array_equal(known.predict(told[["movieId", "userId"]]), model.predict(X))
