from __future__ import annotations

from pathlib import Path

from mlless.channels.folder import Folder
from mlless.data.dataset import Dataset
from mlless.data.manifest import Finding, Made
from mlless.report.datasets import description, facts


def test_ratings(manifest):
    dataset = Dataset("/data/r", manifest(), Folder(Path("/data/r")), "/data/r")
    told = dict(description(dataset))
    assert told["rows"] == "110 ratings of 10 users and 5 items, 1 to 5"
    assert told["train"] == "100 rows in 2 groups of up to 50, mean 3.50"
    assert told["held out"] == "10 rows"
    assert "left out" not in told
    flat = facts(dataset)
    assert flat["kind"] == "ratings"
    assert flat["users"] == 10
    assert flat["train_rows"] == 100
    assert flat["groups"] == 2


def test_clicks(manifest, clicks_shape):
    made = Made("1", "c.svm", 9, "libsvm", 0, 0.0, None, 3)
    dataset = Dataset("c", manifest(clicks_shape, validation=(), made=made), Folder(Path("c")), "c")
    told = dict(description(dataset))
    assert told["rows"] == "110 rows with 1,000 features"
    assert told["train"] == "100 rows in 2 groups of up to 50, 25.0% of them of label 1"
    assert "held out" not in told
    assert "note" not in told
    assert told["left out"] == "3 malformed lines"
    assert facts(dataset)["skipped"] == 3


def test_the_mean_of_another_data_set_is_not_told(manifest):
    made = Made("1", "test.csv", 9, "ratings", 0, 0.0, "0123abcd", 0)
    told = dict(description(Dataset("t", manifest(made=made), Folder(Path("t")), "t")))
    assert told["train"] == "100 rows in 2 groups of up to 50"


def test_what_is_to_doubt_is_told(manifest):
    notes = (Finding("equal", "all are 4"), Finding("held-out", "only 10 rows"))
    dataset = Dataset("d", manifest(notes=notes), Folder(Path("d")), "d")
    assert [text for label, text in description(dataset) if label == "note"] == ["all are 4", "only 10 rows"]
    assert facts(dataset)["notes"] == ["all are 4", "only 10 rows"]
    assert repr(dataset) == "<Dataset d: 110 ratings, 10 of them held out; all are 4; only 10 rows>"
