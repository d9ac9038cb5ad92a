"""What a job leaves of which every process was killed, and that ``clean`` removes this and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.jobs import COMMAND, DriverProcess, alive, children, eventually, job
from servers.rabbitmq import Broker
from servers.redis import QUOTED, Server

import mlless
from mlless.artifact import MODEL
from mlless.data.dataset import Dataset
from mlless.driver import run_job
from mlless.errors import ChannelError, DatasetError, UsageError
from mlless.report.history import CHECKPOINT, HISTORY, SUMMARY
from mlless.report.underway import UNDERWAY
from mlless.runtimes.strays import tagged

LEFT = {MODEL, HISTORY, SUMMARY, CHECKPOINT}


@pytest.fixture
def lose(ratings: Dataset, run_folder: Path, channels: Path) -> Iterator[object]:
    """Return a function that runs a job and kills all of it; with ``stopped``, but for a stopped worker."""
    jobs: list[DriverProcess] = []

    def lose(*, stopped: bool = False, **places: str) -> DriverProcess:
        process = DriverProcess(ratings, run_folder, channels, **places)
        jobs.append(process)
        eventually(lambda: mlless.status(run_folder).model_step > 0, "a best model")
        first, *others = process.workers
        if stopped:
            os.kill(first, signal.SIGSTOP)
        everyone = [process.zygote, *others, process.process.pid, *(() if stopped else (first,))]
        for pid in [process.process.pid, process.zygote, *others]:
            os.kill(pid, signal.SIGSTOP)  # so that none has time to tidy up after another
        for pid in everyone:
            os.kill(pid, signal.SIGKILL)
        process.process.wait()
        eventually(lambda: not any(map(alive, others)), "workers end")
        return process

    yield lose
    for process in jobs:
        process.end()
        for pid in process.workers:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def run_command(*arguments: str | Path) -> str:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()}


@pytest.mark.parametrize("stopped", [False, True])
def test_a_job_on_this_machine(lose, run_folder: Path, stopped: bool) -> None:
    lost = lose(stopped=stopped)
    found = mlless.status(run_folder)
    assert found.state == "lost"
    assert found.job is not None
    assert found.job.addresses is not None
    (run_folder / ".part-of-a-model").write_bytes(b"x")
    (folder,) = lost.channels.iterdir()
    assert str(folder) == found.job.addresses.bus
    removed = mlless.clean(run_folder)
    assert ("processes of the job: 1" in removed) == stopped
    assert f"the folder {folder}" in removed
    assert "half-written files: .part-of-a-model" in removed
    eventually(lambda: not any(map(alive, lost.workers)), "workers end")
    assert not any(lost.channels.iterdir())
    assert LEFT - {CHECKPOINT} <= names(run_folder) <= LEFT
    assert mlless.load(run_folder).kind == "mf"
    assert mlless.clean(run_folder) == []
    cleaned = mlless.status(run_folder)
    assert (cleaned.state, cleaned.job, cleaned.checkpoint) == ("lost", None, found.checkpoint)
    told = run_command("status", run_folder)
    assert "lost: its process was killed, and it holds no server or function any more" in told
    step = "its first step" if found.checkpoint is None else f"step {found.checkpoint}"
    assert f"it would go on from {step}\n" in told
    assert f"mlless resume {run_folder}\n" in told
    assert "mlless clean" not in told


def test_keys_of_others_stay(
    lose, run_folder: Path, redis_server: Server, ratings: Dataset, tmp_path
) -> None:
    other = DriverProcess(ratings, tmp_path / "other", tmp_path / "others", store=redis_server.url)
    try:
        lost = lose(store=redis_server.url, stopped=True)
        found = mlless.status(run_folder)
        assert found.job is not None
        assert found.job.addresses is not None
        name = found.job.addresses.job
        with redis_server.client() as client:
            assert client.keys(f"{name}*")
            assert set(tagged(name)) == {lost.workers[0]}
            removed = mlless.clean(run_folder)
            assert "processes of the job: 1" in removed
            assert any(f"keys of {name} on redis://127.0.0.1" in line for line in removed)
            assert client.keys(f"{name}*") == []
        assert not any(map(alive, lost.workers))
        assert all(map(alive, other.workers))
        assert mlless.stop(tmp_path / "other").stop_reason == "interrupted"
        assert "stopped interrupted" in other.output()[0]
    finally:
        other.end()


def test_queues(lose, run_folder: Path, broker: Broker) -> None:
    lose(bus=broker.url, stopped=True)
    found = mlless.status(run_folder)
    assert found.job is not None
    assert found.job.addresses is not None
    name = found.job.addresses.job
    removed = mlless.clean(run_folder, bus=broker.url)
    assert any(f"4 queues of {name}" in line for line in removed)  # of three workers and the supervisor
    assert broker.names(name) == []


def test_passwords_are_given_anew(
    lose, run_folder: Path, secure_redis_server: Server, tmp_path: Path
) -> None:
    lose(store=secure_redis_server.url)
    assert "s3cret" not in (run_folder / UNDERWAY).read_text()
    with pytest.raises(ChannelError) as caught:
        mlless.clean(run_folder)
    assert "passwords are not recorded" in caught.value.__notes__[-1]
    assert UNDERWAY in names(run_folder)
    removed = mlless.clean(run_folder, store=secure_redis_server.url)
    assert any("keys of mlless-" in line for line in removed)
    assert not any(QUOTED in line for line in removed)
    with secure_redis_server.client() as client:
        assert client.keys("*") == []


def test_a_job_that_is_alive_is_left_alone(ratings: Dataset, run_folder: Path, channels: Path) -> None:
    driver = DriverProcess(ratings, run_folder, channels)
    try:
        with pytest.raises(UsageError, match=r"another job writes to this run.*mlless stop"):
            mlless.clean(run_folder)
        assert all(map(alive, driver.workers))
        assert children(driver.process.pid)
    finally:
        driver.process.terminate()
        driver.output()
        driver.end()


def test_a_run_that_is_finished_has_nothing_to_clean(ratings: Dataset, run_folder: Path) -> None:
    run_job(job(ratings, epochs=1, workers=1), ratings, run_folder)
    before = {path: path.read_bytes() for path in run_folder.iterdir()}
    assert mlless.clean(run_folder) == []
    assert {path: path.read_bytes() for path in run_folder.iterdir()} == before
    told = subprocess.run(
        [sys.executable, "-m", "mlless", "clean", str(run_folder)], capture_output=True, text=True, check=True
    )
    assert told.stdout == "nothing to clean: the run is finished\n"


def test_where_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no run here"):
        mlless.clean(tmp_path)
    assert names(tmp_path) == set()
