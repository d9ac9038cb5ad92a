"""From a file of ratings to predictions."""

from __future__ import annotations

import csv
import json
import os
import subprocess

import numpy as np
import pytest

import mlless as library

SPLIT = {"fetch", "compute", "filter", "publish", "wait", "merge"}


def test_partition_tells_what_it_made(ratings):
    facts = ratings.facts
    assert facts["kind"] == "ratings"
    assert facts["rows"] == 12_000
    assert facts["train_rows"] == 10_800
    assert facts["groups"] == 300
    assert facts["validation_rows"] == 1_200
    assert facts["skipped"] == 0


def test_partition_says_what_to_type_next(mlless, ratings, tmp_path):
    done = mlless("partition", ratings.raw, tmp_path / "my data")
    assert "12,000 ratings of 300 users and 120 items" in done.stdout
    assert f"mlless train '{tmp_path}/my data' --out 'runs/my data'" in done.stdout


def test_partition_counts_what_it_leaves_out(mlless, tmp_path):
    source = tmp_path / "ratings.csv"
    source.write_text("userId,movieId,rating\n" + "1,2,3.5\n" * 200 + "1,2,good\n")
    done = mlless("partition", source, tmp_path / "data", "--skip-malformed")
    assert "1 malformed line" in done.stdout
    again = mlless("partition", source, tmp_path / "data", "--skip-malformed", "--overwrite", "--json")
    assert json.loads(again.stdout)["skipped"] == 1
    assert "line 202" in mlless("partition", source, tmp_path / "other", code=3).stderr


def test_a_run_on_no_terminal_prints_a_line_an_evaluation(ratings):
    lines = ratings.output.splitlines()
    epochs = [line.split()[1] for line in lines if line.startswith("epoch")]
    assert epochs == ["0.0", "1.0", "2.0", "3.0", "4.0"]
    assert all("train rmse" in line and "held-out rmse" in line for line in lines if line.startswith("epoch"))
    assert "\x1b" not in ratings.output
    for words in ("4 epochs done", "compute", "%", f"mlless evaluate {ratings.run}", str(ratings.run)):
        assert words in ratings.output


def test_summary_and_history_are_there_for_other_tools(ratings):
    summary, history = ratings.summary, ratings.history
    for name in ("wall_seconds", "cpu_seconds", "train_loss", "bytes_published", "bytes_read"):
        assert summary[name] > 0
    assert summary["steps"] == len(history)
    assert summary["epochs"] == pytest.approx(4, abs=0.05)
    assert summary["stop_reason"] == "epochs"
    assert set(summary["heldout"]) == {"rmse"}
    assert len(summary["workers"]) == 2
    assert summary["bytes_published"] == sum(step["bytes_out"] for step in history)
    assert [step["step"] for step in history] == list(range(len(history)))
    assert set(history[0]["times"]) >= SPLIT
    assert summary["times"]["compute"] == pytest.approx(sum(step["times"]["compute"] for step in history))


def test_the_model_beats_the_mean_rating(ratings):
    first = next(step["heldout"]["rmse"] for step in ratings.history if step["heldout"])
    assert ratings.summary["heldout"]["rmse"] < 0.85 * first


def test_evaluate_gives_the_held_out_metric_of_the_summary(mlless, ratings):
    result = json.loads(mlless("evaluate", ratings.run, ratings.dataset, "--json").stdout)
    assert set(result) == {"rmse", "rows", "unknown", "part"}
    assert result["part"] == "validation"
    assert result["rows"] == 1_200
    assert result["rmse"] == pytest.approx(ratings.summary["heldout"]["rmse"], rel=1e-6)


def test_evaluate_on_another_part(mlless, ratings):
    done = mlless("evaluate", ratings.run, ratings.dataset, "--part", "all")
    assert "12,000 rows" in done.stdout
    assert "rmse 0." in done.stdout


def test_predictions_carry_original_ids_in_the_order_of_the_source(mlless, ratings, tmp_path):
    out = tmp_path / "predictions.csv"
    mlless("predict", ratings.run, ratings.raw, "--out", out)
    asked = list(csv.DictReader(ratings.raw.read_text().splitlines()))
    given = list(csv.DictReader(out.read_text().splitlines()))
    assert list(given[0]) == ["user", "item", "prediction"]
    assert [(row["user"], row["item"]) for row in given] == [(row["userId"], row["movieId"]) for row in asked]
    users, items = ([int(row[name]) for row in asked] for name in ("userId", "movieId"))
    expected = library.load(ratings.run).predict_ratings(users, items)
    np.testing.assert_allclose([float(row["prediction"]) for row in given], expected, rtol=1e-6)
    assert list(tmp_path.iterdir()) == [out]


def test_predict_pairs_without_a_rating_even_unknown_ones(mlless, ratings, tmp_path):
    source = tmp_path / "pairs.tsv"
    source.write_text("1\t5\n999999\t5\n1\t888888\n")
    done = mlless("predict", ratings.run, source)
    rows = list(csv.reader(done.stdout.splitlines()))
    assert [row[:2] for row in rows] == [["user", "item"], ["1", "5"], ["999999", "5"], ["1", "888888"]]
    assert all(0.5 <= float(row[2]) <= 5.0 for row in rows[1:])


def test_a_hyphen_is_standard_output(mlless, ratings, tmp_path):
    for command, arguments in (("predict", (ratings.raw,)), ("recommend", ())):
        shown = mlless(command, ratings.run, *arguments, cwd=tmp_path).stdout
        done = mlless(command, ratings.run, *arguments, "--out", "-", cwd=tmp_path)
        assert done.stdout == shown
        assert " in -" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_predict_a_data_set(mlless, ratings):
    done = mlless("predict", ratings.run, ratings.dataset)
    pairs = {tuple(line.split(",")[:2]) for line in done.stdout.splitlines()[1:]}
    assert len(pairs) == 12_000
    with ratings.raw.open() as file:
        assert pairs == {(row["userId"], row["movieId"]) for row in csv.DictReader(file)}


def test_predict_leaves_malformed_lines_out_and_says_so(mlless, ratings, tmp_path):
    source = tmp_path / "pairs.csv"
    source.write_text("user,item\n1,2\n,7\n3,4\n")
    assert "line 3" in mlless("predict", ratings.run, source, "--out", tmp_path / "out.csv", code=3).stderr
    assert not (tmp_path / "out.csv").exists()
    done = mlless("predict", ratings.run, source, "--skip-malformed")
    assert len(done.stdout.splitlines()) == 3
    assert "left out 1 malformed line" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes end with SIGPIPE on POSIX only")
def test_a_reader_that_has_had_enough_is_no_error(command, ratings):
    predict = subprocess.Popen(
        [*command, "predict", ratings.run, ratings.raw], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert predict.stdout is not None
    assert predict.stderr is not None
    assert predict.stdout.readline() == b"user,item,prediction\n"
    predict.stdout.close()
    with predict.stderr as complaints:
        assert complaints.read() == b""
    assert predict.wait(30) in (0, 141)


def test_json_is_all_that_train_prints(mlless, ratings, tmp_path):
    done = mlless(
        "train", ratings.dataset, "--workers", 1, "--epochs", 1, "--out", tmp_path / "run", "--json"
    )
    assert json.loads(done.stdout) == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert done.stderr == ""


def test_the_same_seed_gives_the_same_model(mlless, ratings, tmp_path):
    options = ["--workers", 3, "--epochs", 1, "--seed", 5, "--json"]
    mlless("train", ratings.dataset, *options, "--out", tmp_path / "a")
    mlless("train", ratings.dataset, *options, "--out", tmp_path / "b")
    first, second = ((tmp_path / run / "model.safetensors").read_bytes() for run in "ab")
    assert first == second
