"""A worker that is stopped: how long it is waited for, and how a job ends without it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration.jobs import DriverProcess, alive, children, eventually, job

from mlless.data.dataset import Dataset
from mlless.driver import run_job
from mlless.locations import Directory
from mlless.prediction import load
from mlless.records import StepRecord
from mlless.report.history import read_history
from mlless.runtimes.processes import ProcessRuntime

Start = Callable[..., DriverProcess]


@pytest.fixture
def started(ratings: Dataset, run_folder: Path, channels: Path) -> Iterator[Start]:
    """Return a function that starts a driver; whatever is left of it is killed."""
    drivers = []

    def start(**options: object) -> DriverProcess:
        drivers.append(DriverProcess(ratings, run_folder, channels, **options))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.end()
        driver.assert_nothing_left()


def state(pid: int) -> str:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()[:1]


def stop(driver: DriverProcess, worker: int) -> int:
    """Stop a worker's process; return its number once it no longer runs."""
    pid = driver.workers[worker]
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: state(pid) == "T", "the worker stops")
    return pid


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_who_asks_for_the_end_gets_the_best_model_without_the_silent_worker(
    started: Start, ratings: Dataset, run_folder: Path, asked: signal.Signals
) -> None:
    driver = started()
    stop(driver, 1)
    driver.process.send_signal(asked)
    output, errors = driver.output()
    assert "stopped interrupted" in output, errors
    assert load(run_folder).evaluate(ratings)["rmse"] < 1.0


def test_a_limit_of_time_holds_without_the_silent_worker(
    started: Start, ratings: Dataset, run_folder: Path
) -> None:
    driver = started(max_time=6.0)
    stop(driver, 2)
    output, errors = driver.output()
    assert "stopped time" in output, errors
    assert load(run_folder).evaluate(ratings)["rmse"] < 1.0


def test_a_worker_that_stays_silent_is_named(started: Start) -> None:
    driver = started(worker_timeout=1.0, on_loss="fail")
    stop(driver, 1)
    _, errors = driver.output()
    assert driver.process.returncode == 1
    assert "no report on step" in errors
    assert "`worker_timeout`" in errors


@pytest.mark.parametrize("policy", ["replace", "shrink"])
def test_a_worker_that_stays_silent_is_replaced_and_ended(
    started: Start, run_folder: Path, policy: str
) -> None:
    driver = started(worker_timeout=1.0, on_loss=policy)
    pid = stop(driver, 1)
    driver.wait_for_step(300)
    assert not alive(pid)
    driver.process.send_signal(signal.SIGINT)
    output, errors = driver.output()
    assert "stopped interrupted" in output, errors
    (record,) = [one for one in read_history(Directory(run_folder)) if one.losses]
    what, then = record.losses[0].split("; ")
    assert re.fullmatch(r"no report on step \d+ from worker 1 within its deadline", what)
    assert then == {"replace": "another one takes its place", "shrink": "the others go on without it"}[policy]
    members = 3 if policy == "replace" else 2
    assert read_history(Directory(run_folder))[-1].workers == members


def test_a_worker_that_pauses_is_waited_for(started: Start) -> None:
    driver = started()
    driver.wait_for_step(40)
    os.kill(stop(driver, 0), signal.SIGCONT)
    driver.wait_for_step(400)
    driver.process.send_signal(signal.SIGINT)
    output, errors = driver.output()
    assert "stopped interrupted" in output, errors


def test_a_driver_that_was_stopped_blames_no_worker(started: Start) -> None:
    """Silence that it has slept through is not that of the workers."""
    driver = started(worker_timeout=4.0)
    workers = [stop(driver, worker) for worker in range(3)]
    os.kill(driver.process.pid, signal.SIGSTOP)
    subprocess.run(["sleep", "6"], check=True)  # longer than any worker may be silent
    os.kill(driver.process.pid, signal.SIGCONT)
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    driver.wait_for_step(400)
    driver.process.send_signal(signal.SIGINT)
    output, errors = driver.output()
    assert "stopped interrupted" in output, errors
    assert re.search(r"for \d+ s nothing could come in: was the driver stopped", errors)


def test_a_woken_worker_of_an_older_generation_is_sent_home(
    ratings: Dataset, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime may not be able to end a single function."""
    monkeypatch.setattr(ProcessRuntime, "end", lambda self, functions: None)
    stopped: list[int] = []
    seen: list[int] = []

    def listen(record: StepRecord) -> None:
        if record.step == 20:
            (zygote,) = [pid for pid in children(os.getpid()) if len(children(pid)) == 3]
            stopped.append(sorted(children(zygote))[1])
            os.kill(stopped[0], signal.SIGSTOP)
        if record.losses:
            os.kill(stopped[0], signal.SIGCONT)
            eventually(lambda: not alive(stopped[0]), "the woken worker exits")
            seen.append(record.step)

    spec = job(ratings, workers=3, epochs=4, worker_timeout=1.0)
    run = run_job(spec, ratings, run_folder, listen=listen)
    assert seen
    assert run.summary.stop_reason == "epochs"
    assert [record.step for record in run.history()] == list(range(run.summary.steps))
    assert [(one.worker, one.generation) for one in run.summary.workers] == [(0, 0), (1, 0), (1, 1), (2, 0)]
