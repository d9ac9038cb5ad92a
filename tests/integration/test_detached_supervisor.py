"""A detached job whose supervisor is a function of Lithops, too: with a bucket and a Redis."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration.jobs import COMMAND, alive, eventually
from servers.redis import Server

import mlless
from mlless.artifact import MODEL
from mlless.channels.opening import open_objects
from mlless.data.dataset import Dataset
from mlless.locations import place_of
from mlless.report.history import CHECKPOINT, HISTORY, SUMMARY, read_summary
from mlless.report.lease import VARIABLE
from mlless.report.underway import LOG, Underway, read_underway

FINISHED = {MODEL, HISTORY, SUMMARY, LOG}
PATIENCE = 120.0  # seconds: a function of Lithops takes a second to start, and more beside other jobs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3")]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of all processes; Lithops finds an empty configuration."""
    (tmp_path / "lithops.yaml").write_text("")
    monkeypatch.setenv("LITHOPS_CONFIG_FILE", str(tmp_path / "lithops.yaml"))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


class Job:
    """A detached job in a bucket: its supervisor and its two workers are functions."""

    def __init__(self, dataset: Dataset, run: str, server: Server, *options: str) -> None:
        self.run, self.place, self.server = run, place_of(run), server
        self.where = ["--runtime", "lithops", "--store", server.url]
        asked = ["--workers", "2", "--epochs", "1000000", "--tariff", "aws-lambda-x86", "--detach"]
        done = self.command("train", dataset.location, "--out", run, *asked, *self.where, *options)
        assert (done.returncode, done.stderr) == (0, "")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    @property
    def job(self) -> Underway | None:
        return read_underway(self.place)

    @property
    def number(self) -> int:
        job = self.job
        return job.detached.number if job and job.detached else -1

    @property
    def names(self) -> set[str]:
        return open_objects(self.place).names()

    def assert_nothing_left(self, temporary: Path) -> None:
        with self.server.client() as client:
            assert client.keys("mlless-*") == []
        eventually(lambda: self.names == FINISHED, "the log", PATIENCE)
        eventually(lambda: not any(temporary.iterdir()), "what Lithops has stored goes", PATIENCE)


@pytest.fixture
def start(
    ratings: Dataset, bucket: str, temporary: Path, redis_server: Server
) -> Iterator[Callable[..., Job]]:
    """Return a function that starts a job."""
    started: list[Job] = []

    def start(*options: str) -> Job:
        started.append(Job(ratings, f"s3://{bucket}/run", redis_server, *options))
        return started[-1]

    yield start
    for one in started:
        if one.job is not None:
            mlless.stop(one.run, within=PATIENCE)


def test_a_supervisor_calls_its_successor_before_its_time_is_up(
    start: Callable[..., Job], temporary: Path
) -> None:
    job = start("--time-limit", "30")
    watching = subprocess.Popen(
        [*COMMAND, "attach", job.run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: job.number >= 1, "another one", PATIENCE)
        eventually(lambda: job.command("status", job.run).stdout.count("function 1, process"), "it leads", 60)
        stopped = job.command("stop", job.run)
        assert (stopped.returncode, stopped.stderr) == (0, "")
        output, errors = watching.communicate(timeout=PATIENCE)
    finally:
        watching.kill()
        watching.communicate()
    assert watching.returncode == 130, errors
    assert "the job is resumed, with 2 workers" in output
    job.assert_nothing_left(temporary)
    summary = read_summary(job.place)
    assert len(summary.resumed) >= 1
    assert summary.bill is not None
    assert {"functions", "supervisor"} <= {item.what for item in summary.bill.items}
    log = open_objects(job.place).get(LOG).decode()
    assert "another supervisor goes on" in log
    assert "the job starts anew" not in log
    assert "supervisor, process" not in log


def test_a_supervisor_that_is_killed_is_called_again(start: Callable[..., Job], temporary: Path) -> None:
    job = start()
    eventually(lambda: CHECKPOINT in job.names, "a checkpoint", PATIENCE)
    first = job.job
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: (now := job.job) is not None and now.pid != first.pid, "another one", PATIENCE)
    assert mlless.status(job.run).state in ("starting", "running")
    seen = job.command("status", job.run).stdout
    assert f"the supervisor, process {first.pid}, was lost: " in seen
    stopped = job.command("stop", job.run)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    job.assert_nothing_left(temporary)
    assert len(read_summary(job.place).resumed) == 1
    assert f"the supervisor, process {first.pid}, was lost: " in open_objects(job.place).get(LOG).decode()
    assert not alive(first.pid)


def test_a_job_that_is_lost_with_its_guardian_is_cleaned_and_resumed(
    start: Callable[..., Job], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine Lithops ends a function whose caller is gone; of a cloud it would go on."""
    monkeypatch.setenv(VARIABLE, "4")
    job = start()
    eventually(lambda: CHECKPOINT in job.names, "a checkpoint", PATIENCE)
    first = job.job
    assert first is not None
    found = subprocess.run(
        ["pgrep", "-f", f"mlless.detached.guardian .*{temporary}"], capture_output=True, text=True, check=True
    )
    (guardian,) = map(int, found.stdout.split())
    os.kill(guardian, signal.SIGKILL)
    eventually(lambda: not alive(first.pid), "the function ends", PATIENCE)
    seen = job.command("status", job.run).stdout
    assert f"lost: its function 0, process {first.pid} of {socket.gethostname()} is gone" in seen
    (told,) = (line for line in seen.splitlines() if "mlless resume" in line)
    store, runtime = job.where[2:], job.where[:2]
    assert shlex.split(told)[1:] == ["mlless", "resume", job.run, "--detach", *store, *runtime]
    cleaned = job.command("clean", job.run)
    assert (cleaned.returncode, cleaned.stderr) == (0, "")
    with job.server.client() as client:
        assert client.keys("mlless-*") == []
    resumed = job.command("resume", job.run, "--detach", *job.where)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert job.number == 0
    assert mlless.stop(job.run, within=PATIENCE).stop_reason == "interrupted"
    eventually(lambda: job.names == FINISHED, "the log", PATIENCE)
    assert len(read_summary(job.place).resumed) == 1
