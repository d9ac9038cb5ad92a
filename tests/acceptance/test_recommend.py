"""mlless recommend, as a user types it."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise

import numpy as np
import pytest

from mlless import MatrixFactorization
from mlless.data.dataset import open_dataset
from mlless.prediction import load


def rows_in(text):
    return list(csv.DictReader(text.splitlines()))


def pairs_rated(dataset):
    ids, rated = dataset.ids(), set()
    for group in dataset.groups(dataset.manifest.train + dataset.manifest.validation):
        users, items = ids.users[group.users], ids.items[group.items]
        rated |= set(zip(map(str, users.tolist()), map(str, items.tolist()), strict=True))
    return rated


def check_order(rows):
    for before, after in pairwise(rows):
        if before["user"] == after["user"]:
            assert int(after["rank"]) == int(before["rank"]) + 1
            assert float(before["score"]) >= float(after["score"])
        else:
            assert after["rank"] == "1"


@pytest.mark.parametrize("named", [False, True])
def test_what_was_rated_is_left_out(mlless, ratings, tmp_path, named):
    out = tmp_path / "best.csv"
    mlless(
        "recommend", ratings.run, *(("--exclude", ratings.dataset) if named else ()), "-n", 3, "--out", out
    )
    rows, dataset = rows_in(out.read_text()), open_dataset(ratings.dataset)
    seen, ids = pairs_rated(dataset), dataset.ids()
    left = {user for user in map(str, ids.users) if sum(one == user for one, _ in seen) < len(ids.items)}
    assert {row["user"] for row in rows} == left
    assert not seen & {(row["user"], row["item"]) for row in rows}
    check_order(rows)
    low, high = dataset.manifest.shape.low, dataset.manifest.shape.high
    for row in rows:
        assert float(row["prediction"]) == pytest.approx(min(max(float(row["score"]), low), high), rel=1e-5)


def test_what_was_rated_is_included_on_request(mlless, ratings):
    done = mlless("recommend", ratings.run, "--include-seen", "-n", 10**4)
    dataset = open_dataset(ratings.dataset)
    assert len(rows_in(done.stdout)) == len(dataset.ids().users) * len(dataset.ids().items)
    mlless("recommend", ratings.run, "--include-seen", "--exclude", ratings.dataset, code=2)


def test_users_may_come_from_standard_input(mlless, ratings, tmp_path):
    users = tmp_path / "users.txt"
    users.write_text("".join(f"{user}\n" for user in open_dataset(ratings.dataset).ids().users[:3]))
    with users.open() as file:
        piped = mlless("recommend", ratings.run, "--users", "-", "--include-seen", stdin=file)
    assert piped.stdout == mlless("recommend", ratings.run, "--users", users, "--include-seen").stdout
    assert len({row["user"] for row in rows_in(piped.stdout)}) == 3
    done = mlless("recommend", ratings.run, "--users", tmp_path / "none.txt", code=3)
    assert done.stdout == ""


def test_a_run_whose_data_set_is_gone_says_so(mlless, ratings, tmp_path):
    shutil.copytree(ratings.run, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    summary["job"]["dataset"] = str(tmp_path / "gone")
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    out = tmp_path / "best.csv"
    done = mlless("recommend", tmp_path / "run", "--out", out, code=2)
    assert str(tmp_path / "gone") in done.stderr
    assert "--include-seen" in done.stderr
    assert not out.exists()


def test_ids_of_any_text_come_back_as_they_were(mlless, tmp_path):
    users, items = ["ann", "7", "007", 'b "x", c', "12.0"], ["é", "1", "a,b", "-1"]
    with (tmp_path / "r.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "rating"])
        writer.writerows(
            [u, i, 1 + (m + n) % 5] for m, u in enumerate(users) for n, i in enumerate(items) if m != n
        )
    mlless("partition", tmp_path / "r.csv", tmp_path / "data", "--validation", 0)
    mlless("train", tmp_path / "data", "--out", tmp_path / "run", "--epochs", 2)
    rows = rows_in(mlless("recommend", tmp_path / "run").stdout)
    assert {(row["user"], row["item"]) for row in rows} == {
        ("ann", "é"),
        ("7", "1"),
        ("007", "a,b"),
        ('b "x", c', "-1"),
    }
    predicted = rows_in(mlless("predict", tmp_path / "run", tmp_path / "r.csv").stdout)
    assert {row["user"] for row in predicted} == {"ann", "7", "007", 'b "x", c', "12"}
    (tmp_path / "users.txt").write_bytes("\ufeff007\n12\nnobody\n".encode())
    done = mlless("recommend", tmp_path / "run", "--users", tmp_path / "users.txt", "--include-seen", "-n", 1)
    assert [row["user"] for row in rows_in(done.stdout)] == ["007", "12", "nobody"]
    assert "1 user of 3 not in the model" in done.stderr


def test_an_estimator_knows_what_its_users_have_seen(mlless, tmp_path):
    users, items = ["ann", "7", "007", 'b "x", c', "12.0"], ["é", "1", "a,b", "-1"]
    pairs = [(user, item) for m, user in enumerate(users) for n, item in enumerate(items) if m != n]
    ratings = [1 + n % 5 for n in range(len(pairs))]
    MatrixFactorization(random_state=0).fit(np.array(pairs, object), ratings).save(tmp_path / "run")
    rows = rows_in(mlless("recommend", tmp_path / "run").stdout)
    left = {("ann", "é"), ("7", "1"), ("007", "a,b"), ('b "x", c', "-1")}
    assert {(row["user"], row["item"]) for row in rows} == left
    (tmp_path / "users.txt").write_bytes("\ufeff007\n12\nnobody\n".encode())
    done = mlless("recommend", tmp_path / "run", "--users", tmp_path / "users.txt", "--include-seen", "-n", 1)
    assert [row["user"] for row in rows_in(done.stdout)] == ["007", "12", "nobody"]
    assert "1 user of 3 not in the model" in done.stderr


def test_users_of_a_file_and_a_stranger(mlless, ratings, tmp_path):
    known = open_dataset(ratings.dataset).ids().users[:2].tolist()
    (tmp_path / "users.txt").write_text(f"{known[1]}\n\n{known[0]}\n{10**15}\n")
    done = mlless("recommend", ratings.run, "--users", tmp_path / "users.txt", "-n", 2, "--include-seen")
    rows = rows_in(done.stdout)
    assert [int(row["user"]) for row in rows] == [known[1]] * 2 + [known[0]] * 2 + [10**15] * 2
    expected = float(load(ratings.run).predict_ratings([known[1]], [int(rows[0]["item"])])[0])
    assert float(rows[0]["prediction"]) == pytest.approx(expected, rel=1e-5)
    assert "1 user of 3 not in the model" in done.stderr


def test_a_line_that_is_no_text_is_named(mlless, ratings, tmp_path):
    (tmp_path / "users.txt").write_bytes(b"1\nx\xff\n")
    done = mlless("recommend", ratings.run, "--users", tmp_path / "users.txt", code=3)
    assert "line 2" in done.stderr
    mlless("recommend", ratings.run, "--users", tmp_path / "none.txt", code=3)
    mlless("recommend", ratings.run, "-n", 0, code=2)


@pytest.mark.parametrize("users", [False, True])
def test_a_model_of_clicks_does_not_recommend(mlless, clicks, tmp_path, users):
    (tmp_path / "users.txt").write_text("1\n")
    chosen = ("--users", tmp_path / "users.txt") if users else ()
    done = mlless("recommend", clicks.run, *chosen, "--out", tmp_path / "best.csv", code=2)
    assert "neither predicts ratings nor recommends" in done.stderr
    assert not (tmp_path / "best.csv").exists()


def test_features_that_a_model_does_not_know_are_told(mlless, clicks, tmp_path):
    (tmp_path / "more.svm").write_text("1 1:1 2000000000:1\n0 2:1\n")
    done = mlless("predict", clicks.run, tmp_path / "more.svm")
    assert [row["row"] for row in rows_in(done.stdout)] == ["0", "1"]
    assert "passed over 1 value of features that the model does not know" in done.stderr
    assert "passed over 1 value" in mlless("evaluate", clicks.run, tmp_path / "more.svm").stderr
