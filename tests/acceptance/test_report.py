"""mlless report, as a user types it."""

from __future__ import annotations

import shutil


def test_runs_side_by_side(mlless, ratings, clicks, tmp_path):
    done = mlless("report", ratings.run, clicks.run, cwd=tmp_path)
    assert done.stdout == "report    report/index.html\n"
    page = (tmp_path / "report" / "index.html").read_text()
    for told in ("Training RMSE", "Training log loss", "Held-out AUC", "not to be compared"):
        assert told in page
    assert (tmp_path / "report" / "held-out-auc-over-steps.png").stat().st_size > 5_000


def test_one_run_and_then_another_in_its_place(mlless, ratings, clicks, tmp_path):
    mlless("report", ratings.run, "--out", tmp_path / "page")
    assert (tmp_path / "page" / "held-out-rmse-over-time.png").exists()
    mlless("report", clicks.run, "--out", tmp_path / "page")
    assert not (tmp_path / "page" / "held-out-rmse-over-time.png").exists()


def test_a_run_that_has_failed_is_left_out(mlless, ratings, tmp_path):
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "history.jsonl").write_bytes(b"")
    done = mlless("report", tmp_path / "failed", ratings.run, "--out", tmp_path / "page")
    assert f"left out {tmp_path}/failed: it is under way, or has failed" in done.stderr
    assert "<h1>run</h1>" in (tmp_path / "page" / "index.html").read_text()
    done = mlless("report", tmp_path / "failed", "--out", tmp_path / "other", code=2)
    assert "this run is under way, or has failed" in done.stderr


def test_what_is_wrong_is_told_in_a_line(mlless, ratings, tmp_path):
    done = mlless("report", tmp_path / "none", "--out", tmp_path / "page", code=4)
    assert f"{tmp_path}/none: no run here" in done.stderr
    assert not (tmp_path / "page").exists()
    shutil.copytree(ratings.run, tmp_path / "run")
    done = mlless("report", tmp_path / "run", "--out", tmp_path / "run", code=2)
    assert "something else is in the report's place" in done.stderr
    (tmp_path / "run" / "history.jsonl").write_bytes(b"{\n")
    done = mlless("report", tmp_path / "run", "--out", tmp_path / "page", code=4)
    assert "not the files of a run of this release" in done.stderr
    for output in (done.stdout, done.stderr):
        assert "Traceback" not in output
