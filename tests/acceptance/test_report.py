"""mlless report, as a user types it."""

from __future__ import annotations

import shutil


def test_runs_side_by_side(mlless, ratings, clicks, tmp_path):
    done = mlless("report", ratings.run, clicks.run, cwd=tmp_path)
    assert done.stdout == "report    report/index.html\n"
    page = (tmp_path / "report" / "index.html").read_text()
    for told in ("Training MSE", "Training log loss", "Held-out AUC", "no metric in common"):
        assert told in page
    assert (tmp_path / "report" / "held-out-auc-over-steps.png").stat().st_size > 5_000


def test_one_run_and_then_another_in_its_place(mlless, ratings, clicks, tmp_path):
    mlless("report", ratings.run, "--out", tmp_path / "page")
    assert (tmp_path / "page" / "held-out-rmse-over-time.png").exists()
    mlless("report", clicks.run, "--out", tmp_path / "page")
    assert not (tmp_path / "page" / "held-out-rmse-over-time.png").exists()


def test_what_is_wrong_is_told_in_a_line(mlless, ratings, tmp_path):
    done = mlless("report", tmp_path / "none", "--out", tmp_path / "page", code=2)
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
