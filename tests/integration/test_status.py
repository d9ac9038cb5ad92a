"""A job as it is seen and ended from another process: what it is known to do, and the request to stop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from integration.jobs import PATIENCE, DriverProcess, job
from servers.redis import QUOTED, Server

import mlless
from mlless.artifact import MODEL
from mlless.data.dataset import Dataset
from mlless.driver import run_job
from mlless.errors import DatasetError, UsageError
from mlless.records import StepRecord
from mlless.report.history import HISTORY, SUMMARY
from mlless.report.lock import LOCK
from mlless.report.underway import STOP, UNDERWAY, Underway

FINISHED = {MODEL, HISTORY, SUMMARY}


@pytest.fixture
def driver(ratings: Dataset, run_folder: Path, channels: Path) -> Iterator[DriverProcess]:
    process = DriverProcess(ratings, run_folder, channels)
    yield process
    process.end()


def names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()}


def test_a_job_of_another_process_is_seen_and_stopped(driver: DriverProcess, run_folder: Path) -> None:
    seen = mlless.status(run_folder)
    assert seen.state == "running"
    assert seen.job is not None
    assert seen.job.pid == driver.process.pid
    stopped = mlless.stop(run_folder, within=PATIENCE)
    assert (stopped.state, stopped.stop_reason) == ("finished", "interrupted")
    assert stopped.job is None
    assert stopped.step is not None
    assert stopped.model_step > 0
    assert "stopped interrupted" in driver.output()[0]
    assert names(run_folder) == FINISHED
    driver.assert_nothing_left()
    with pytest.raises(UsageError, match="found one that is finished"):
        mlless.stop(run_folder)


def test_training_in_the_process_is_seen_and_stopped(ratings: Dataset, run_folder: Path) -> None:
    code = (
        f"import mlless; mlless.train({ratings.location!r}, out={str(run_folder)!r}, epochs=10**6, workers=1)"
    )
    training = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert training.stdout is not None
        training.stdout.readline()
        assert mlless.status(run_folder).state in ("starting", "running")
        assert mlless.stop(run_folder, within=PATIENCE).stop_reason == "interrupted"
        training.communicate(timeout=PATIENCE)
    finally:
        training.kill()
    assert training.returncode == 0
    assert names(run_folder) == FINISHED


def test_a_job_that_was_killed_is_lost(driver: DriverProcess, run_folder: Path) -> None:
    driver.process.kill()
    driver.process.wait()
    assert mlless.status(run_folder).state == "lost"
    with pytest.raises(UsageError, match="found one that is lost"):
        mlless.stop(run_folder)
    assert UNDERWAY in names(run_folder)


def test_a_request_to_stop_was_for_the_job_before(ratings: Dataset, run_folder: Path) -> None:
    run_job(job(ratings, workers=1, epochs=1), ratings, run_folder)
    (run_folder / STOP).write_bytes(b"")
    again = run_job(job(ratings, workers=1, epochs=1), ratings, run_folder, overwrite=True)
    assert again.summary.stop_reason == "epochs"
    assert names(run_folder) == FINISHED


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_replaces_a_run_is_told_apart_from_it(
    ratings: Dataset, run_folder: Path, workers: int
) -> None:
    run_job(job(ratings, workers=1, epochs=1), ratings, run_folder)
    seen = []

    def listen(record: StepRecord) -> None:
        if record.step == 1:
            seen.append(mlless.status(run_folder))

    run_job(job(ratings, workers=workers, epochs=2), ratings, run_folder, overwrite=True, listen=listen)
    (found,) = seen
    assert found.state in ("starting", "running")  # steps are in the history after a second at the latest
    assert (found.epochs, found.stop_reason, found.model_step) == (2, None, 0)


def test_what_a_job_says_of_itself_has_no_credentials(
    ratings: Dataset, run_folder: Path, secure_redis_server: Server
) -> None:
    assert QUOTED in secure_redis_server.url
    told: list[str] = []

    def listen(record: StepRecord) -> None:
        if record.step == 0:
            told.append((run_folder / UNDERWAY).read_text())

    mlless.train(
        ratings,
        out=run_folder,
        workers=1,
        epochs=1,
        store=secure_redis_server.url,
        verbose=False,
        listen=listen,
    )
    (text,) = told
    job = msgspec.json.decode(text, type=Underway)
    assert f"127.0.0.1:{secure_redis_server.port}/0" in job.deployment.store
    assert job.addresses is not None
    assert job.addresses.store == job.deployment.servers
    assert "s3cret" not in text


def test_where_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no run here"):
        mlless.status(tmp_path)
    with pytest.raises(DatasetError, match="no run here"):
        mlless.stop(tmp_path)
    assert not (tmp_path / LOCK).exists()
