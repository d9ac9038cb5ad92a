"""Frames with text and categories: the features of a file with the same columns, and its model."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.model_selection import cross_val_score

import mlless
from mlless.data.features import FeatureMap, Layout

NAMES = ["age", "site", "device", "visits"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """1,000 rows with something to learn from a number and from a category; some values are missing."""
    random = np.random.default_rng(0)
    site = random.integers(0, 40, 1000)
    frame = pd.DataFrame(
        {
            "age": np.where(random.random(1000) < 0.1, np.nan, random.integers(18, 80, 1000)),
            "site": [None if n % 11 == 0 else f"site é {n}" for n in site],
            "device": pd.Categorical(random.integers(0, 3, 1000)),
            "visits": random.poisson(4, 1000),
        }
    )
    margin = np.where(site % 2, 2.0, -2.0) + (frame["visits"] - 4) / 2
    return frame.assign(clicked=(margin + random.logistic(size=1000) > 0).astype(int))


@pytest.fixture(scope="module")
def fitted(table: pd.DataFrame) -> mlless.LogisticRegression:
    return mlless.LogisticRegression(random_state=0).fit(table[NAMES], table["clicked"])


def test_a_frame_has_the_features_of_its_file(table, fitted, tmp_path):
    """The model of a frame scores its file, and that of the file scores the frame."""
    table.to_csv(tmp_path / "rows.csv", index=False)
    fitted.save(tmp_path / "model")
    probability = fitted.predict_proba(table[NAMES])[:, 1]
    (scored,) = mlless.load(tmp_path / "model").predict(tmp_path / "rows.csv")
    np.testing.assert_allclose(scored.values, probability, rtol=1e-5)
    layout = Layout("clicked", ("age", "visits"), ("site", "device"))
    dataset = mlless.partition(tmp_path / "rows.csv", tmp_path / "data", columns=layout, validation=0)
    learnt = dataset.manifest.shape.columns
    assert isinstance(learnt, FeatureMap)
    assert fitted._columns.layout == layout
    for ours, theirs in zip(fitted._columns.scales, learnt.scales, strict=True):
        assert (ours.shift, ours.spread) == pytest.approx((theirs.shift, theirs.spread))

    of_file = mlless.LogisticRegression(random_state=0, max_iter=500).fit(dataset)
    assert of_file.feature_names_in_.tolist() == ["age", "visits", "site", "device"]
    np.testing.assert_allclose(
        of_file.predict_proba(table[of_file.feature_names_in_])[:, 1], probability, atol=0.02
    )


def test_scales_are_those_of_the_rows_to_train_on(table):
    whole = mlless.LogisticRegression(max_iter=1, random_state=0).fit(table[NAMES], table["clicked"])
    part = mlless.LogisticRegression(max_iter=1, random_state=0, validation_fraction=0.5)
    part.fit(table[NAMES], table["clicked"])
    assert whole._columns.scales != part._columns.scales
    ages = np.log1p(table["age"])
    assert whole._columns.scales[0].shift == pytest.approx(ages.mean())
    assert whole._columns.scales[0].spread == pytest.approx(ages.std(ddof=0))


def test_it_learns_from_categories_and_numbers(table, fitted):
    assert fitted.score(table[NAMES], table["clicked"]) > 0.75
    assert fitted.n_features_in_ == 4
    assert fitted.feature_names_in_.tolist() == NAMES
    assert fitted.coef_.shape == (1, fitted._columns.features)
    scores = cross_val_score(mlless.LogisticRegression(random_state=0), table[NAMES], table["clicked"], cv=3)
    assert scores.mean() > 0.7


def test_a_frame_of_polars_gives_the_same_model(table, fitted):
    frame = pl.DataFrame(
        {
            "age": pl.Series(table["age"].to_numpy(), nan_to_null=True),
            "site": pl.Series(
                [value if isinstance(value, str) else None for value in table["site"]], dtype=pl.Categorical
            ),
            "device": [str(value) for value in table["device"]],
            "visits": table["visits"].to_numpy(),
        }
    )
    model = mlless.LogisticRegression(random_state=0).fit(frame, table["clicked"].to_numpy())
    np.testing.assert_array_equal(model.coef_, fitted.coef_)
    np.testing.assert_array_equal(model.predict_proba(frame), fitted.predict_proba(table[NAMES]))


def test_a_frame_of_numbers_alone_stays_an_array(table):
    numbers = table[["visits"]].assign(old=table["age"] > 50, again=table["visits"].astype(object))
    model = mlless.LogisticRegression(random_state=0, max_iter=5).fit(numbers, table["clicked"])
    array = mlless.LogisticRegression(random_state=0, max_iter=5).fit(
        numbers.to_numpy().astype(float), table["clicked"].to_numpy()
    )
    np.testing.assert_array_equal(model.coef_, array.coef_)


def test_what_is_new_or_missing_is_scored_like_any(table, fitted):
    row = table[NAMES].iloc[:1].assign(site="never seen", device=7)
    nothing = pd.DataFrame({"age": [None], "site": [None], "device": [None], "visits": [None]})
    for frame in (row, nothing):
        assert 0 < fitted.predict_proba(frame)[0, 1] < 1
        assert fitted.predict(frame) in (0, 1)


def test_columns_may_be_numbered(table, tmp_path):
    frame = table[NAMES].set_axis(range(4), axis=1)
    model = mlless.LogisticRegression(random_state=0, max_iter=5).fit(frame, table["clicked"])
    model.save(tmp_path)
    for one in (model, mlless.LogisticRegression.load(tmp_path)):
        assert not hasattr(one, "feature_names_in_")
        np.testing.assert_array_equal(one.predict_proba(frame), model.predict_proba(frame))


@pytest.mark.parametrize("workers", [1, 2])
def test_columns_of_any_type_of_pandas(table, workers):
    frame = table[NAMES].assign(
        age=table["age"].astype("Int64"), site=table["site"].astype("string"), old=table["age"] > 50
    )
    frame["old"] = frame["old"].astype("boolean").where(table["age"].notna())
    model = mlless.LogisticRegression(random_state=0, max_iter=20, workers=workers)
    model.fit(frame.sample(frac=1, random_state=0), table["clicked"].sample(frac=1, random_state=0))
    assert model._columns.layout.numeric == ("age", "visits", "old")
    assert model.score(frame, table["clicked"]) > 0.75


def test_weights_and_names_of_classes_go_with_frames(table):
    weights = np.arange(len(table)) % 3
    label = np.where(table["clicked"] == 1, "yes", "no")
    weighted = mlless.LogisticRegression(random_state=0, max_iter=30).fit(table[NAMES], label, weights)
    kept = weights > 0
    alone = mlless.LogisticRegression(random_state=0, max_iter=30).fit(
        table[NAMES][kept], label[kept], weights[kept]
    )
    np.testing.assert_array_equal(weighted.coef_, alone.coef_)
    assert set(weighted.predict(table[NAMES])) == {"yes", "no"}


def test_labels_with_names_are_those_of_files(table, tmp_path):
    named = table.assign(clicked=np.where(table["clicked"] == 1, "yes", "no"))
    model = mlless.LogisticRegression(random_state=0, max_iter=20).fit(named[NAMES], named["clicked"])
    assert model._columns.layout.labels == ("no", "yes")
    assert model.partial_fit(named[NAMES], named["clicked"])._columns.layout.labels == ("no", "yes")

    named.to_csv(tmp_path / "rows.csv", index=False)
    dataset = mlless.partition(tmp_path / "rows.csv", tmp_path / "data", columns=model._columns.layout)
    of_file = mlless.LogisticRegression(random_state=0, max_iter=20).fit(dataset)
    assert of_file.classes_.tolist() == ["no", "yes"]
    assert (of_file.predict(table[of_file.feature_names_in_]) == named["clicked"]).mean() > 0.75
    run = mlless.train(dataset.location, out=tmp_path / "run", workers=1, epochs=2, verbose=False)
    assert mlless.LogisticRegression.load(run.folder).classes_.tolist() == ["no", "yes"]


def test_learning_goes_on_with_the_first_scales(table, tmp_path):
    first, second = table[:500], table[500:]
    model = mlless.LogisticRegression(random_state=0).partial_fit(first[NAMES], first["clicked"], max_iter=50)
    columns = model._columns
    model.save(tmp_path)
    loaded = mlless.LogisticRegression.load(tmp_path)
    for one in (model, loaded):
        one.partial_fit(second[NAMES], second["clicked"], max_iter=50)
        assert one._columns == columns
        assert one.feature_names_in_.tolist() == NAMES
    np.testing.assert_array_equal(loaded.coef_, model.coef_)
    assert model.score(table[NAMES], table["clicked"]) > 0.75


def test_frames_that_do_not_fit_are_refused(table, fitted):
    X, y = table[NAMES], table["clicked"]
    for wrong, message in (
        (X[NAMES[::-1]], "same order"),
        (X.drop(columns="site"), "Feature names seen at fit time, yet now missing"),
        (X.assign(age="old"), "a finite number or nothing in column age, found .old"),
        (X.assign(site=1.5), "column site: wrong type"),
        (X[:0], r"Found array with 0 sample\(s\) \(shape=\(0, 4\)\)"),
        (X.assign(age=np.inf), "row 1: malformed row: expected a finite number or nothing in column age"),
        (X.assign(site="x" * 5000), "at most 4096 bytes in column site"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            fitted.predict(wrong)
        assert "--" not in str(caught.value)
    with pytest.warns(UserWarning, match="feature names"), pytest.raises(ValueError, match="must be a frame"):
        fitted.predict(np.zeros((3, 4)))
    for wrong, target, message in (
        (X.assign(site=datetime.date(2020, 1, 1)), y, "column site is of date32"),
        (X.assign(site=[1, "a"] * 500), y, "mixed or unknown types"),
        (X, y[1:], "inconsistent numbers of samples"),
        (X, y.where(y == 1), "y contains NaN"),
        (X, np.arange(1000) % 3, "Only binary classification"),
    ):
        with pytest.raises(ValueError, match=message):
            mlless.LogisticRegression().fit(wrong, target)


def test_a_data_set_of_other_columns_does_not_go_on(table, fitted, tmp_path):
    table.to_csv(tmp_path / "rows.csv", index=False)
    layout = Layout("clicked", ("age", "visits"), ("site",))
    dataset = mlless.partition(tmp_path / "rows.csv", tmp_path / "data", columns=layout)
    model = mlless.LogisticRegression(random_state=0).fit(table[NAMES], table["clicked"])
    with pytest.raises(ValueError, match="partition it like the first"):
        model.partial_fit(dataset)
