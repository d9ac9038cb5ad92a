from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pandas
import pytest
import safetensors.numpy

import mlless
from mlless.artifact import FORMAT, Artifact, Description, write_artifact
from mlless.data.dataset import open_dataset
from mlless.data.ids import RatingIds
from mlless.errors import DatasetError, InputError, UsageError
from mlless.job import Factorization, Logistic
from mlless.locations import Directory
from mlless.prediction import Predictions, Predictor, evaluate, load


@pytest.fixture
def ratings():
    """A model of users 7 and 3, and items 20 and 10, with one factor."""
    model = Factorization(users=2, items=2, factors=1, l2=0.0, centre=3.0, deviation=2.0, low=1.0, high=5.0)
    tables = {
        "users": np.array([[1.0, 0.25], [2.0, 0.5]], np.float32),
        "items": np.array([[0.5, 0.0], [-1.0, 0.25]], np.float32),
    }
    ids = RatingIds(users=np.array([7, 3]), items=np.array([20, 10]))
    return Predictor(Artifact(Description(FORMAT, "1", model, "0", 0), tables, ids))


@pytest.fixture
def clicks():
    """A model of features 0 to 3."""
    tables = {
        "features": np.array([[1.0], [-2.0], [0.5], [0.0]], np.float32),
        "intercept": np.array([[-0.5]], np.float32),
    }
    model = Logistic(features=4, l2=0.0, intercept=0.0)
    return Predictor(Artifact(Description(FORMAT, "1", model, "0", 0), tables, None))


def _sigmoid(*margins):
    return [1 / (1 + math.exp(-margin)) for margin in margins]


def test_ratings_are_named_by_original_ids(ratings):
    given = ratings.predict_ratings([7, 3, 7], [20, 20, 10])
    np.testing.assert_allclose(given, [3 + 2 * 0.75, 5.0, 3 + 2 * -0.5])  # the second is clipped
    assert ratings.kind == "mf"


def test_who_is_unknown_contributes_nothing(ratings):
    given = ratings.predict_ratings([7, 99, 99], [99, 10, 99])
    np.testing.assert_allclose(given, [3 + 2 * 0.25, 3 + 2 * 0.25, 3.0])


def test_pairs_must_pair_up(ratings):
    with pytest.raises(UsageError, match="pair up"):
        ratings.predict_ratings([1, 2], [1])


def test_clicks_are_probabilities(clicks):
    given = clicks.predict_clicks([0, 2, 2, 3], [0, 1, 2], [1.0, 2.0, 4.0])
    np.testing.assert_allclose(given, _sigmoid(-3.5, -0.5, 1.5), rtol=1e-6)
    np.testing.assert_allclose(clicks.predict_clicks([0, 1], [1]), _sigmoid(-2.5), rtol=1e-6)


def test_features_beyond_the_model_contribute_nothing(clicks):
    given = clicks.predict_clicks([0, 2, 3], [4, 1, 2**40], [5.0, 1.0, 1.0])
    np.testing.assert_allclose(given, _sigmoid(-2.5, -0.5), rtol=1e-6)
    with pytest.raises(UsageError, match="from 0, found -1"):
        clicks.predict_clicks([0, 1], [-1])


def test_features_beyond_the_model_are_counted(clicks, tmp_path):
    source = tmp_path / "clicks.svm"
    source.write_text("1 0:1\n0 1:1 9:1 70:2\n1 2:1\n")
    (one,) = clicks.predict(source)
    assert (one.keys[0].tolist(), one.unknown) == ([0, 1, 2], 2)
    np.testing.assert_allclose(one.values, _sigmoid(0.5, -2.5, 0.0), rtol=1e-6)
    raw = clicks.evaluate_raw(source)
    data = clicks.evaluate(mlless.partition(source, tmp_path / "data", validation=0.0))
    assert raw["unknown"] == data["unknown"] == 2
    assert raw["log_loss"] == pytest.approx(data["log_loss"])


def test_a_model_predicts_its_own_kind_only(ratings, clicks):
    for ask in (
        lambda: clicks.predict_ratings([1], [1]),
        lambda: clicks.recommend([1]),
        lambda: clicks.all_users(),
    ):
        with pytest.raises(UsageError, match="neither predicts ratings nor recommends"):
            ask()
    with pytest.raises(UsageError, match="does not predict clicks"):
        ratings.predict_clicks([0], [])


def test_predicting_a_file_of_ratings_keeps_its_order(ratings, tmp_path):
    source = tmp_path / "pairs.csv"
    source.write_text("item,user\n20,7\n10,99\n20,3\n")
    (one,) = ratings.predict(source)
    assert [key.tolist() for key in one.keys] == [[7, 99, 3], [20, 10, 20]]
    np.testing.assert_allclose(one.values, [4.5, 3.5, 5.0])
    assert one.done == 1.0
    assert one.csv() == "7,20,4.5\n99,10,3.5\n3,20,5\n"
    assert ratings.columns == ("user", "item", "prediction")


def test_predicting_a_file_of_clicks_numbers_its_rows(clicks, tmp_path):
    source = tmp_path / "clicks.svm"
    source.write_text("1 0:1\n0\n0 1:2 2:1\n")
    (one,) = clicks.predict(source)
    assert one.keys[0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(one.values, _sigmoid(0.5, -0.5, -4.0), rtol=1e-6)
    assert clicks.columns == ("row", "prediction")


def test_malformed_lines_are_errors_or_left_out(clicks, tmp_path):
    source = tmp_path / "clicks.svm"
    source.write_text("1 0:1\n1 x:1\n0 1:1\n")
    with pytest.raises(InputError, match="line 2"):
        list(clicks.predict(source))
    runs = list(clicks.predict(source, skip_malformed=True))
    assert sum(one.skipped for one in runs) == 1
    assert [number for one in runs for number in one.keys[0]] == [0, 2]  # as they are in the source


def test_a_source_of_the_other_kind_is_refused_before_it_is_read(ratings, tmp_path):
    source = tmp_path / "clicks.svm"
    source.write_text("1 0:1\n")
    with pytest.raises(UsageError, match="expected ratings, found clicks"):
        ratings.predict(source)


@pytest.fixture
def dataset(tmp_path):
    """Four ratings of the model's users and items, one of them held out."""
    source = tmp_path / "ratings.csv"
    source.write_text("user,item,rating\n7,20,4\n7,10,2\n3,20,5\n3,10,1\n")
    return mlless.partition(source, tmp_path / "data", validation=0.25)


def test_predicting_a_data_set_gives_every_row_with_original_ids(ratings, dataset):
    given = {}
    done = []
    for one in ratings.predict(dataset.location):
        given |= dict(zip(zip(*(key.tolist() for key in one.keys), strict=True), one.values, strict=True))
        done.append(one.done)
    assert given == {(7, 20): 4.5, (7, 10): 2.0, (3, 20): 5.0, (3, 10): pytest.approx(1.0)}
    assert done == [0.75, 1.0]


def test_evaluation(ratings, dataset):
    result = ratings.evaluate(dataset)
    assert result == {"rmse": pytest.approx(math.sqrt(0.25 / 4)), "rows": 4, "unknown": 0}
    assert ratings.evaluate(dataset, "validation")["rows"] == 1


def test_the_held_out_part_of_the_own_data_set_is_the_natural_one(ratings, dataset):
    assert ratings.natural_part(dataset) == "all"
    about = ratings.artifact.description
    own = Description(FORMAT, "1", about.model, dataset.manifest.fingerprint, 0)
    assert (
        Predictor(Artifact(own, ratings.artifact.tables, ratings.artifact.ids)).natural_part(dataset)
        == "validation"
    )


def test_evaluation_of_clicks(clicks, tmp_path):
    source = tmp_path / "clicks.svm"
    source.write_text("1 0:1\n0 1:1\n")
    dataset = mlless.partition(source, tmp_path / "data", features=4, validation=0.0)
    result = clicks.evaluate(dataset)
    high, low = _sigmoid(0.5, -2.5)
    assert result["log_loss"] == pytest.approx(-(math.log(high) + math.log(1 - low)) / 2, rel=1e-6)
    assert result["auc"] == 1.0
    with pytest.raises(UsageError, match="no rows"):
        clicks.evaluate(dataset, "validation")


def test_evaluation_needs_a_data_set_of_the_same_kind(clicks, dataset):
    with pytest.raises(UsageError, match="expected clicks, found ratings"):
        clicks.evaluate(dataset)


def test_a_model_file_is_all_that_is_needed(ratings, dataset, tmp_path):
    write_artifact(Directory(tmp_path), ratings.artifact)
    assert evaluate(tmp_path, dataset.location) == ratings.evaluate(open_dataset(dataset.location))
    with pytest.raises(DatasetError, match="no model here"):
        load(tmp_path / "data")


def test_a_run_is_evaluated_on_raw_rows_too(ratings, tmp_path):
    write_artifact(Directory(tmp_path), ratings.artifact)
    raw = tmp_path / "raw.csv"
    raw.write_text("user,item,rating\n1,2,3\n4,5\n")
    result = evaluate(tmp_path, [raw], skip_malformed=True)
    assert result == ratings.evaluate_raw(raw, skip_malformed=True)
    assert (result["rows"], result["skipped"]) == (1, 1)
    with pytest.raises(UsageError, match="raw rows are not in parts"):
        evaluate(tmp_path, raw, "train")


def test_csv_of_row_numbers():
    one = Predictions((np.array([4, 5]),), np.array([0.25, 1 / 3], np.float32), 1.0)
    assert one.csv() == "4,0.25\n5,0.3333333\n"


@pytest.fixture
def named():
    """The model of `ratings`, with text for ids."""
    model = Factorization(users=2, items=2, factors=1, l2=0.0, centre=3.0, deviation=2.0, low=1.0, high=5.0)
    tables = {
        "users": np.array([[1.0, 0.25], [2.0, 0.5]], np.float32),
        "items": np.array([[0.5, 0.0], [-1.0, 0.25]], np.float32),
    }
    ids = RatingIds(np.array(["ann, b.", "7"], object), np.array(['the "x"', "010"], object))
    return Predictor(Artifact(Description(FORMAT, "1", model, "0", 0), tables, ids))


def test_ids_may_be_text(named, tmp_path):
    users, items = ["ann, b.", "7", "7"], ['the "x"', "010", "10"]
    expected = [4.5, 1.0, 3 + 2 * 0.5]
    for form in (list, np.array, lambda ids: np.array(ids, object), pandas.Series):
        np.testing.assert_allclose(named.predict_ratings(form(users), form(items)), expected)
    np.testing.assert_allclose(named.predict_ratings([7, 7], ["010", "10"]), expected[1:])
    np.testing.assert_allclose(named.predict_ratings(np.array([7.0]), ["010"]), expected[1:2])
    write_artifact(Directory(tmp_path / "run"), named.artifact)
    again = load(tmp_path / "run")
    np.testing.assert_array_equal(again.predict_ratings(users, items), named.predict_ratings(users, items))
    assert again.artifact.ids.users.tolist() == ["ann, b.", "7"]
    assert not again.artifact.extras


@pytest.mark.parametrize("values", [[None], [1.5], [float("nan")], [-1], [""], [b"x"]])
def test_what_is_no_id_is_an_error(ratings, values):
    with pytest.raises(UsageError, match="users"):
        ratings.predict_ratings(values, [1])


def test_csv_quotes_text_where_it_must(named):
    pairs = np.array(["ann, b.", "7"], object), np.array(['the "x"', "010"], object)
    text = Predictions(pairs, named.predict_ratings(*pairs), 1.0).csv()
    rows = list(csv.reader(text.splitlines()))
    assert [row[:2] for row in rows] == [["ann, b.", 'the "x"'], ["7", "010"]]
    assert text.splitlines()[1].startswith("7,010,")


def test_recommendations_are_ordered_by_what_is_not_clipped(ratings, named):
    items, scores = ratings.recommend([3, 7, 99], 3, exclude_seen=False)
    assert items.tolist() == [[20, 10, -1], [20, 10, -1], [10, 20, -1]]
    np.testing.assert_allclose(scores[0], [3 + 2 * 1.5, 3 + 2 * -1.25, np.nan])
    np.testing.assert_allclose(ratings.within_scale(scores)[0], [5.0, 1.0, np.nan])
    items, _ = named.recommend(["7"], 3, exclude_seen=False)
    assert items.tolist() == [['the "x"', "010", ""]]


def test_one_id_alone_is_one_user(ratings, named):
    for one, model in ((7, ratings), ("7", ratings), ("ann, b.", named)):
        together, scores = model.recommend([one], 2, exclude_seen=False)
        alone = model.recommend(one, 2, exclude_seen=False)
        assert alone[0].tolist() == together.tolist()
        assert alone[1].tolist() == scores.tolist()
    with pytest.raises(UsageError, match="one id or a sequence"):
        ratings.recommend([[7, 3]])


def test_a_model_says_what_it_is_and_where_it_is_from(ratings, clicks):
    assert repr(ratings) == "<Predictor mf: factors=1, users=2, items=2>"
    run = Predictor(clicks.artifact, Directory(Path("runs/first")))
    assert repr(run) == "<Predictor lr: features=4; from runs/first>"


def test_what_was_seen_comes_from_the_data_set_that_a_run_was_trained_on(dataset, tmp_path):
    run = mlless.train(dataset.location, model="mf", out=tmp_path / "run", epochs=1, workers=1)
    model = run.model()
    assert model.recommend([7, 3])[0].tolist() == [[-1, -1] + [-1] * 8] * 2
    assert (model.recommend([7, 3], exclude_seen=False)[0][:, :2] > 0).all()
    (tmp_path / "part.csv").write_text("user,item,rating\n7,20,4\n")
    other = mlless.partition(tmp_path / "part.csv", tmp_path / "part", validation=0.0)
    assert model.recommend([7], 2, exclude_seen=model.seen_in(other))[0].tolist() == [[10, -1]]
    mlless.partition(tmp_path / "part.csv", dataset.location, validation=0.0, overwrite=True)
    with pytest.raises(UsageError, match=r"another data set.*`exclude`"):
        mlless.load(run).recommend([7])
    (tmp_path / "run" / "summary.json").write_text("{}")
    with pytest.raises(UsageError, match=r"not the summary of a run"):
        mlless.load(run).recommend([7])


def test_a_model_file_that_says_nonsense_of_what_was_seen_is_an_error(ratings):
    for starts, items in (([0, 1, 1], [2]), ([0, 2, 1], [0]), ([1, 1, 1], [0]), ([], []), ([[0, 1]], [0])):
        extras = {"seen.starts": np.array(starts, np.int64), "seen.items": np.array(items, np.uint32)}
        about = ratings.artifact
        with pytest.raises(DatasetError, match="damaged"):
            Predictor(Artifact(about.description, about.tables, about.ids, extras)).recommend([7])


def test_ids_that_do_not_fit_the_tables_are_an_error(named, tmp_path):
    write_artifact(Directory(tmp_path / "run"), named.artifact)
    path = tmp_path / "run" / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    for name, harmed in (
        ("user_ids.ends", arrays["user_ids.ends"][:1]),
        ("user_ids.ends", arrays["user_ids.ends"] + 1),
        ("item_ids.text", np.full(len(arrays["item_ids.text"]), 255, np.uint8)),
    ):
        safetensors.numpy.save_file({**arrays, name: harmed}, path, metadata)
        with pytest.raises(DatasetError, match="the model's ids are not what its description says"):
            load(tmp_path / "run")
