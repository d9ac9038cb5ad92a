"""From a file of clicks to probabilities."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from mlless.data.synthetic import write_clicks


def test_partition_tells_what_it_made(clicks):
    assert clicks.facts["kind"] == "clicks"
    assert clicks.facts["features"] == 500
    assert clicks.facts["rows"] == 6_000
    assert 0 < clicks.facts["positives"] < 1


def test_a_run_tells_log_loss_and_auc(clicks):
    evaluations = [line for line in clicks.output.splitlines() if line.startswith("epoch")]
    assert len(evaluations) == 4
    assert all(
        "train log_loss" in line and "held-out log_loss" in line and "auc" in line for line in evaluations
    )
    summary = clicks.summary
    assert list(summary["heldout"]) == ["log_loss", "auc"]
    assert summary["heldout"]["auc"] > 0.6
    assert summary["job"]["sync"]["significance"] == 0
    assert summary["steps"] == len(clicks.history)


def test_evaluate_gives_the_held_out_metrics_of_the_summary(mlless, clicks):
    result = json.loads(mlless("evaluate", clicks.run, clicks.dataset, "--json").stdout)
    assert set(result) == {"log_loss", "auc", "rows", "unknown", "part"}
    heldout = clicks.summary["heldout"]
    assert result["log_loss"] == pytest.approx(heldout["log_loss"], rel=1e-6)
    assert result["auc"] == pytest.approx(heldout["auc"], abs=1e-3)  # a run's is of a histogram of scores


def test_evaluate_on_a_test_set_like_the_training_one(mlless, clicks, tmp_path):
    write_clicks(tmp_path / "test.svm", rows=500, features=400, per_row=8, seed=4)
    mlless("partition", tmp_path / "test.svm", tmp_path / "test", "--like", clicks.dataset)
    result = json.loads(mlless("evaluate", clicks.run, tmp_path / "test", "--json").stdout)
    assert result["rows"] == 500
    assert result["part"] == "all"


def test_predictions_are_probabilities_by_row_number(mlless, clicks, tmp_path):
    out = tmp_path / "predictions.csv"
    done = mlless("predict", clicks.run, clicks.raw, "--out", out)
    assert "6,000 predictions" in done.stderr
    assert done.stdout == ""
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(6_000))
    probability = np.array([float(row["prediction"]) for row in rows])
    labels = np.array([line.startswith("1") for line in clicks.raw.read_text().splitlines()])
    assert ((probability > 0) & (probability < 1)).all()
    assert probability[labels].mean() > probability[~labels].mean()
    loss = -np.log(np.where(labels, probability, 1 - probability)).mean()
    everything = json.loads(mlless("evaluate", clicks.run, clicks.dataset, "--part", "all", "--json").stdout)
    assert loss == pytest.approx(everything["log_loss"], rel=1e-4)


def test_predicting_a_data_set_gives_the_same_by_row_number(mlless, clicks):
    by_row = [
        dict(line.split(",") for line in mlless("predict", clicks.run, source).stdout.splitlines()[1:])
        for source in (clicks.raw, clicks.dataset)
    ]
    assert by_row[0].keys() == by_row[1].keys()
    for row, value in by_row[0].items():
        assert float(by_row[1][row]) == pytest.approx(float(value), rel=1e-5)
