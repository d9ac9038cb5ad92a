"""The history of a run for other programs, also while its job runs; and how it stands, for Prometheus."""

from __future__ import annotations

import json
import subprocess

import pytest

DEADLINE = 60.0


def test_the_history_is_printed_as_it_is_in_the_file(mlless, ratings):
    assert mlless("history", ratings.run).stdout == (ratings.run / "history.jsonl").read_text()
    assert mlless("history", ratings.run, "--follow").stdout == (ratings.run / "history.jsonl").read_text()


def test_no_run_has_no_history(mlless, tmp_path):
    assert "no run here" in mlless("history", tmp_path, code=4).stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_is_followed_until_it_ends(mlless, command, ratings, tmp_path, workers):
    run = tmp_path / "run"
    mlless("train", ratings.dataset, "--workers", workers, "--epochs", 10**6, "--out", run, "--detach")
    with subprocess.Popen(
        [*command, "history", run, "--follow"], stdout=subprocess.PIPE, text=True
    ) as follower:
        try:
            first = [json.loads(follower.stdout.readline())["step"] for _ in range(20)]
            assert first == list(range(20))
            mlless("stop", run)
            rest = [json.loads(line)["step"] for line in follower.stdout.read().splitlines()]
            assert follower.wait(DEADLINE) == 0
        finally:
            follower.kill()
    assert [*first, *rest] == list(range(json.loads((run / "summary.json").read_text())["steps"]))


def test_a_job_that_was_killed_ends_with_an_error(mlless, ratings, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    lines = (ratings.run / "history.jsonl").read_text()
    (run / "history.jsonl").write_text(lines)
    done = mlless("history", run, "--follow", code=6)
    assert "killed" in done.stderr


def test_a_run_stands_for_prometheus(mlless, ratings):
    lines = mlless("status", ratings.run, "--openmetrics").stdout.splitlines()
    assert lines[-1] == "# EOF"
    assert f'mlless_state{{run="{ratings.run}",state="finished"}} 1.0' in lines
    assert "do not go together" in mlless("status", ratings.run, "--openmetrics", "--json", code=2).stderr
