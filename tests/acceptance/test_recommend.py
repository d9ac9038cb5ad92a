"""mlless recommend, as a user types it."""

from __future__ import annotations

import csv
from itertools import pairwise

import pytest

from mlless.data.dataset import open_dataset
from mlless.prediction import load, original_ids


def rows_in(text):
    return list(csv.DictReader(text.splitlines()))


def test_what_was_rated_is_left_out(mlless, ratings, tmp_path):
    out = tmp_path / "best.csv"
    mlless("recommend", ratings.run, "--exclude", ratings.dataset, "--number", 3, "--out", out)
    rows, dataset = rows_in(out.read_text()), open_dataset(ratings.dataset)
    ids, seen = dataset.ids(), set()
    for file in dataset.manifest.train + dataset.manifest.validation:
        users, items = original_ids(dataset.read(file), ids)
        seen |= set(zip(users.tolist(), items.tolist(), strict=True))
    left = {user for user in ids.users.tolist() if sum(one == user for one, _ in seen) < len(ids.items)}
    assert {int(row["user"]) for row in rows} == left
    assert not seen & {(int(row["user"]), int(row["item"])) for row in rows}
    assert [row["rank"] for row in rows[:3]] == ["1", "2", "3"]
    for before, after in pairwise(rows):
        if before["user"] == after["user"]:
            assert float(before["prediction"]) >= float(after["prediction"])


def test_users_of_a_file_and_a_stranger(mlless, ratings, tmp_path):
    known = open_dataset(ratings.dataset).ids().users[:2].tolist()
    (tmp_path / "users.txt").write_text(f"{known[1]}\n\n{known[0]}\n{10**15}\n")
    done = mlless("recommend", ratings.run, "--users", tmp_path / "users.txt", "-n", 2)
    rows = rows_in(done.stdout)
    assert [int(row["user"]) for row in rows] == [known[1]] * 2 + [known[0]] * 2 + [10**15] * 2
    expected = float(load(ratings.run).predict_ratings([known[1]], [int(rows[0]["item"])])[0])
    assert float(rows[0]["prediction"]) == pytest.approx(expected, rel=1e-5)


def test_a_line_that_is_no_id_is_named(mlless, ratings, tmp_path):
    (tmp_path / "users.txt").write_text("1\nx7\n")
    done = mlless("recommend", ratings.run, "--users", tmp_path / "users.txt", code=3)
    assert "line 2" in done.stderr
    mlless("recommend", ratings.run, "--users", tmp_path / "none.txt", code=3)
    mlless("recommend", ratings.run, "-n", 0, code=2)


def test_a_model_of_clicks_does_not_recommend(mlless, clicks, tmp_path):
    (tmp_path / "users.txt").write_text("1\n")
    done = mlless("recommend", clicks.run, "--users", tmp_path / "users.txt", code=2)
    assert "does not recommend" in done.stderr
