"""What a job does when processes die, users interrupt, or the machine runs out of room."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from integration.jobs import DriverProcess, alive, children, eventually, job

import mlless
from mlless.data.dataset import Dataset, open_dataset
from mlless.driver import run_job
from mlless.errors import UsageError, WorkerFailed
from mlless.locations import Directory
from mlless.report.history import read_history, read_summary


@pytest.fixture
def driver(
    ratings: Dataset, run_folder: Path, channels: Path, request: pytest.FixtureRequest
) -> Iterator[DriverProcess]:
    pattern = getattr(request, "param", "broadcast")
    process = DriverProcess(ratings, run_folder, channels, pattern=pattern)
    yield process
    process.end()


each_pattern = pytest.mark.parametrize("driver", ["broadcast", "allreduce", "scatter"], indirect=True)


@each_pattern
def test_a_killed_worker_is_replaced(driver: DriverProcess, run_folder: Path) -> None:
    os.kill(driver.workers[1], signal.SIGKILL)
    driver.wait_for_step(300)
    assert len(children(driver.zygote)) == 3
    driver.process.send_signal(signal.SIGINT)
    output, errors = driver.output()
    assert "stopped interrupted" in output, errors
    driver.assert_nothing_left()
    history, summary = read_history(Directory(run_folder)), read_summary(Directory(run_folder))
    assert [record.step for record in history] == list(range(summary.steps))
    assert mlless.status(run_folder).lost == 1
    (losses,) = [record.losses for record in history if record.losses]
    assert re.fullmatch(
        r"worker 1 died in step \d+: signal SIGKILL; another one takes its place(; .* is lost)?", losses[0]
    )
    assert [(one.worker, one.generation) for one in summary.workers] == [(0, 0), (1, 0), (1, 1), (2, 0)]


@each_pattern
def test_all_workers_killed_at_once_begin_anew(driver: DriverProcess, run_folder: Path) -> None:
    for worker in driver.workers:
        os.kill(worker, signal.SIGKILL)
    driver.wait_for_step(300)
    driver.process.send_signal(signal.SIGTERM)
    output, errors = driver.output()
    assert "stopped interrupted" in output, errors
    driver.assert_nothing_left()
    history, summary = read_history(Directory(run_folder)), read_summary(Directory(run_folder))
    assert [record.step for record in history] == list(range(summary.steps))
    (back,) = [record for record in history if record.rewound_to is not None]
    assert back.rewound_to == back.step
    assert len(back.losses) == 3
    assert summary.lost == sum(record.lost for record in history) == mlless.status(run_folder).lost == 3


def test_a_killed_worker_ends_the_job_with_its_name(
    ratings: Dataset, run_folder: Path, channels: Path
) -> None:
    driver = DriverProcess(ratings, run_folder, channels, on_loss="fail")
    try:
        os.kill(driver.workers[1], signal.SIGKILL)
        _, errors = driver.output()
        assert driver.process.returncode != 0
        assert re.search(r"WorkerLost: worker 1 died in step \d+: found signal SIGKILL", errors)
        driver.assert_nothing_left()
    finally:
        driver.end()


def test_a_worker_that_is_killed_again_and_again_ends_the_job(
    driver: DriverProcess, run_folder: Path
) -> None:
    """Its successors come no further than it did."""
    deadline = time.monotonic() + 20
    while driver.process.poll() is None and time.monotonic() < deadline:
        for worker in children(driver.zygote):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    _, errors = driver.output()
    assert re.search(r"WorkerLost: worker \d died in step \d+", errors)
    driver.assert_nothing_left()
    assert read_summary(Directory(run_folder)).stop_reason == "failed"


def test_workers_of_a_killed_driver_exit(driver: DriverProcess) -> None:
    driver.process.kill()
    driver.process.wait()
    driver.assert_nothing_left(within=5)


def test_workers_exit_even_if_driver_and_zygote_are_killed(driver: DriverProcess) -> None:
    os.kill(driver.zygote, signal.SIGKILL)
    driver.process.kill()
    driver.process.wait()
    # No one is left who could remove the files; the processes must go all the same.
    eventually(lambda: not any(map(alive, driver.workers)), "workers exit", within=5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_the_model_so_far(
    driver: DriverProcess, run_folder: Path, number: signal.Signals
) -> None:
    driver.process.send_signal(number)
    output, _ = driver.output()
    assert "stopped interrupted" in output
    assert mlless.load(run_folder).kind == "mf"
    driver.assert_nothing_left()


def test_a_second_interrupt_stops_at_once(driver: DriverProcess, run_folder: Path) -> None:
    os.kill(driver.workers[0], signal.SIGSTOP)  # so that the orderly end cannot come
    driver.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 5
    while driver.process.poll() is None and time.monotonic() < deadline:
        driver.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, errors = driver.output()
    assert "KeyboardInterrupt" in errors
    driver.assert_nothing_left()
    summary = read_summary(Directory(run_folder))
    assert (summary.stop_reason, summary.error) == ("failed", "KeyboardInterrupt")
    assert (run_folder / "model.safetensors").exists() == (summary.model_step > 0)


def test_a_worker_that_raises_is_quoted(ratings: Dataset, run_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", ratings.location, str(copy)], check=True)
    damaged = copy / ratings.manifest.train[7].path
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(WorkerFailed, match=r"worker \d failed in step 0: .*000007.* damaged file"):
        run_job(job(open_dataset(copy), workers=2), ratings, run_folder)


def test_shared_memory_that_is_too_small_is_named(ratings: Dataset, run_folder: Path, tmp_path: Path) -> None:
    code = (
        "import resource, mlless\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        f"mlless.train({ratings.location!r}, model='mf', workers=2, factors=40, out={str(run_folder)!r})\n"
    )
    environment = {**os.environ, "MLLESS_CHANNEL_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "no room for" in done.stderr
    assert "MLLESS_CHANNEL_DIR" in done.stderr
    assert not list(tmp_path.glob("mlless-*"))


@pytest.mark.parametrize("sync", ["bsp", "isp"])
def test_divergence_keeps_the_last_good_model(ratings: Dataset, run_folder: Path, sync: str) -> None:
    spec = job(ratings, workers=3, sync=sync, optimizer="nesterov", learning_rate=3000.0, merge="sum")
    run = run_job(spec, ratings, run_folder)
    assert run.summary.stop_reason == "diverged"
    assert run.summary.restored
    evaluated = [record.heldout["rmse"] for record in run.history() if record.heldout]
    assert run.summary.heldout["rmse"] == pytest.approx(min(evaluated))
    assert run.model().evaluate(ratings)["rmse"] == pytest.approx(min(evaluated), rel=1e-5)


def test_more_workers_than_groups_are_refused(ratings: Dataset) -> None:
    with pytest.raises(UsageError, match="more workers than groups of rows: expected `workers` up to 300"):
        job(ratings, workers=301)
    with pytest.raises(UsageError, match="number of workers"):
        job(ratings, workers=0)


def test_a_data_set_that_vanished_is_named(ratings: Dataset, run_folder: Path, tmp_path: Path) -> None:
    spec = msgspec.structs.replace(job(ratings, workers=2), dataset=str(tmp_path / "gone"))
    with pytest.raises(WorkerFailed, match="no such folder"):
        run_job(spec, ratings, run_folder)


def test_rare_clicks_are_not_taken_for_divergence(run_folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    lines = [
        f"{int(random.random() < 0.002)} {' '.join(f'{i}:1' for i in sorted(random.choice(500, 5, False)))}"
        for _ in range(6_000)
    ]
    (tmp_path / "rare.svm").write_text("\n".join(lines) + "\n")
    dataset = mlless.partition(tmp_path / "rare.svm", tmp_path / "data")
    for seed in range(3):
        run = run_job(job(dataset, workers=1, epochs=2, seed=seed), dataset, tmp_path / str(seed))
        assert run.summary.stop_reason == "epochs"


def test_a_failing_run_leaves_the_model_it_was_to_replace(ratings: Dataset, run_folder: Path) -> None:
    first = run_job(job(ratings, workers=2, epochs=1), ratings, run_folder)
    (run_folder / "notes.txt").write_text("mine")
    files = {path.name: path.read_bytes() for path in run_folder.iterdir()}
    spec = msgspec.structs.replace(job(ratings, workers=2), dataset=str(run_folder / "gone"))
    with pytest.raises(UsageError, match="exists"):
        run_job(spec, ratings, run_folder)
    with pytest.raises(WorkerFailed):
        run_job(spec, ratings, run_folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in run_folder.iterdir()} == files
    again = run_job(job(ratings, workers=2, epochs=1, seed=1), ratings, run_folder, overwrite=True)
    assert (run_folder / "notes.txt").read_text() == "mine"
    assert len(again.history()) == len(first.history())


def test_another_data_set_in_the_place_of_the_planned_one_is_noticed(
    ratings: Dataset, clicks: Dataset, run_folder: Path
) -> None:
    spec = msgspec.structs.replace(job(ratings, workers=2), dataset=clicks.location)
    with pytest.raises(WorkerFailed, match="not the data set the job was planned for"):
        run_job(spec, ratings, run_folder)


@pytest.mark.parametrize(
    "wish", [{"optimizer": "adam"}, {"sync": "BSP"}, {"workers": 2.5}, {"runtime": "aws"}]
)
def test_a_wish_that_does_not_exist_is_refused(
    ratings: Dataset, run_folder: Path, wish: dict[str, object]
) -> None:
    with pytest.raises(UsageError, match="not a value of this setting: expected"):
        mlless.train(ratings.location, out=run_folder, **wish)  # type: ignore[arg-type]
