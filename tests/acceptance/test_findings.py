"""What is told of data from which little can be learnt: when it is made, trained on, and in files."""

from __future__ import annotations

import json
from pathlib import Path

import mlless as library


def write_ratings(path: Path, rating: str) -> Path:
    """Write 400 ratings of 20 users and 20 items, the last of them twice."""
    pairs = [(n // 20, n % 20) for n in range(400)]
    text = "".join(f"{user},{item},{rating}\n" for user, item in [*pairs, pairs[-1]])
    path.write_text("userId,movieId,rating\n" + text)
    return path


def notes(output: str) -> list[str]:
    return [line.removeprefix("note").strip() for line in output.splitlines() if line.startswith("note")]


def test_equal_ratings_train_and_predict_that_rating_and_all_say_so(mlless, tmp_path):
    source, data, run = write_ratings(tmp_path / "r.csv", "4"), tmp_path / "data", tmp_path / "run"
    told = notes(mlless("partition", source, data).stdout)
    assert [note.partition(":")[0] for note in told] == [
        "all 401 ratings are 4",
        "1 of 401 ratings repeat a pair of user and item, one pair is there 2 times",
        "only 40 rows are there to judge a model by",
    ]
    assert json.loads(mlless("partition", source, tmp_path / "other", "--json").stdout)["notes"] == told
    trained = mlless("train", data, "--workers", 2, "--epochs", 2, "--out", run)
    assert notes(trained.stdout) == told
    lines = [line.split()[0] for line in trained.stdout.splitlines() if line]
    assert lines[lines.index("result") + 1] == "note"
    assert json.loads((run / "summary.json").read_text())["notes"] == told
    model = library.load(run)
    assert set(model.predict_ratings(users=[0, 5, 19, 77], items=[3, 0, 19, 3]).tolist()) == {4.0}


def test_one_class_is_refused_by_partition_and_by_train(mlless, tmp_path):
    source = tmp_path / "c.svm"
    source.write_text("1 1:1\n" * 300)
    failed = mlless("partition", source, tmp_path / "one", code=3)
    assert "c.svm: only one class: expected rows of label 0 and of label 1 to train on" in failed.stderr
    assert "found 270 rows, all of label 1. Check the label column" in failed.stderr
    assert not (tmp_path / "one").exists()
    source.write_text("1 1:1\n0 2:1\n" * 300)
    mlless("partition", source, tmp_path / "both")
    # As made by a version that did not look: the manifest says that all are of one label.
    manifest = json.loads((tmp_path / "both" / "manifest.json").read_text())
    manifest["shape"]["positives"] = 0.0
    (tmp_path / "both" / "manifest.json").write_text(json.dumps(manifest))
    failed = mlless("train", tmp_path / "both", "--out", tmp_path / "run", code=3)
    assert "only one class" in failed.stderr
    assert "found 540 rows, all of label 0" in failed.stderr
    assert not (tmp_path / "run").exists()
