"""When a training ends, and that Ctrl-C is an end like any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ENDLESS = ["--workers", "2", "--epochs", "1000000"]
DEADLINE = 30.0


def test_target(mlless, ratings, tmp_path):
    done = mlless(
        "train",
        ratings.dataset,
        "--workers",
        2,
        "--target",
        "rmse=0.9",
        "--epochs",
        50,
        "--out",
        tmp_path / "run",
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stop_reason"] == "target"
    assert summary["heldout"]["rmse"] <= 0.9
    assert summary["epochs"] < 50
    assert "target reached: rmse 0.9" in done.stdout


def test_max_time(mlless, clicks, tmp_path):
    done = mlless("train", clicks.dataset, *ENDLESS, "--max-time", 5, "--out", tmp_path / "run", "--json")
    summary = json.loads(done.stdout)
    assert summary["stop_reason"] == "time"
    assert 0.5 <= summary["wall_seconds"] < 10


def test_patience(mlless, clicks, tmp_path):
    done = mlless("train", clicks.dataset, "--workers", 2, "--epochs", 500, "--patience", 1,
                  "--learning-rate", 0.5, "--out", tmp_path / "run", "--json")  # fmt: skip
    assert json.loads(done.stdout)["stop_reason"] == "patience"


def test_divergence_has_its_own_exit_code_and_keeps_the_last_good_model(mlless, ratings, tmp_path):
    run = tmp_path / "run"
    done = mlless("train", ratings.dataset, "--workers", 2, "--learning-rate", 1000, "--out", run, code=7)
    assert "diverged" in done.stderr
    assert "--learning-rate" in done.stderr
    mlless("evaluate", run, ratings.dataset)


class Training:
    """A training that runs until it is stopped."""

    def __init__(self, command: list[str], dataset: Path, run: Path) -> None:
        self.run = run
        self.process = subprocess.Popen(
            [*command, "train", str(dataset), *ENDLESS, "--out", str(run)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def await_line(self, start: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return
        raise AssertionError(self.process.communicate())  # it ended before it came to that

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, output, errors


@pytest.fixture
def training(command, ratings, tmp_path):
    one = Training(command, ratings.dataset, tmp_path / "run")
    yield one
    one.process.kill()
    one.process.communicate()


def test_ctrl_c_saves_the_model(mlless, ratings, training):
    training.await_line("epoch   1.0")
    training.interrupt()
    code, output, errors = training.end()
    assert code == 130
    assert "interrupted: the model so far is in" in errors
    assert "Traceback" not in errors
    assert "ended     interrupted" in output
    summary = json.loads((training.run / "summary.json").read_text())
    assert summary["stop_reason"] == "interrupted"
    assert not [one["pid"] for one in summary["workers"] if _alive(one["pid"])]
    result = json.loads(mlless("evaluate", training.run, ratings.dataset, "--json").stdout)
    assert result["rmse"] == pytest.approx(summary["heldout"]["rmse"], rel=1e-6)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the workers")
def test_a_second_ctrl_c_stops_at_once(training):
    training.await_line("epoch   1.0")
    workers = [pid for zygote in _children(training.process.pid) for pid in _children(zygote)]
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # so that the job cannot come to an orderly end
    deadline = time.monotonic() + DEADLINE
    while training.process.poll() is None and time.monotonic() < deadline:
        training.interrupt()  # again and again: signals that come too close together count as one
        try:
            training.process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    code, _, errors = training.end()
    assert code == 130
    assert errors.startswith("interrupted: stopped at once")
    summary = json.loads((training.run / "summary.json").read_text())
    assert (summary["stop_reason"], summary["error"]) == ("failed", "KeyboardInterrupt")
    kept = f"the best model so far, that of step {summary['model_step']}, is in {training.run}"
    assert (training.run / "model.safetensors").exists() == (summary["model_step"] > 0) == (kept in errors)
    assert not [pid for pid in workers if _alive(pid)]


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
