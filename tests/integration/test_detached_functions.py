"""Detached jobs whose workers are functions of Lithops on this machine, and meet at a Redis."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.jobs import COMMAND, DetachedJob, alive, eventually
from servers.redis import Server

import mlless
from mlless.artifact import MODEL
from mlless.data.dataset import Dataset
from mlless.locations import Directory
from mlless.report.history import CHECKPOINT, HISTORY, SUMMARY, read_summary
from mlless.report.underway import LOG

FINISHED = {MODEL, HISTORY, SUMMARY, LOG}
PATIENCE = 60.0  # seconds: a function of Lithops takes a second to start, and more beside other jobs


def names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()}


class Functions(DetachedJob):
    """A detached job of two functions, at work."""

    def __init__(self, dataset: Dataset, run: Path, temporary: Path, server: Server) -> None:
        self.server = server
        options = ["--workers", "2", "--runtime", "lithops", "--store", server.url]
        super().__init__(dataset, run, temporary, *options)
        assert (self.done.returncode, self.done.stderr) == (0, "")
        self.look()

    @property
    def name(self) -> str:
        """The name of the job, with which its keys begin."""
        found = self.status.job
        assert found is not None
        assert found.addresses is not None
        return found.addresses.job

    def keys(self, name: str) -> list[bytes]:
        with self.server.client() as client:
            return client.keys(f"{name}*")

    def lose(self, *processes: int) -> tuple[str, list[int]]:
        """Kill processes of the job once it can be resumed; return its name, and who ends with them."""
        eventually(lambda: CHECKPOINT in names(Path(self.run)), "a checkpoint", PATIENCE)
        self.look()
        name = self.name
        assert self.keys(name)
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        return name, self.everyone[1:]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of all processes; Lithops finds an empty configuration."""
    (tmp_path / "lithops.yaml").write_text("")
    monkeypatch.setenv("LITHOPS_CONFIG_FILE", str(tmp_path / "lithops.yaml"))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def functions(
    ratings: Dataset, run_folder: Path, temporary: Path, redis_server: Server
) -> Iterator[Functions]:
    started = Functions(ratings, run_folder, temporary, redis_server)
    yield started
    started.end()


def test_functions_outlive_the_terminal_that_they_were_started_from(
    ratings: Dataset, run_folder: Path, temporary: Path, redis_server: Server
) -> None:
    command = [*COMMAND, "train", ratings.location, "--out", str(run_folder), "--epochs", "1000000"]
    command += ["--workers", "2", "--runtime", "lithops", "--store", redis_server.url, "--detach"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(
            "/bin/sh", ["/bin/sh", "-c", f"{subprocess.list2cmdline(command)}; echo left with $?; read _"]
        )
    shown = b""
    while b"left with" not in shown:
        shown += os.read(terminal, 4096)
    assert b"left with 0" in shown
    os.close(terminal)
    os.waitpid(pid, 0)
    seen = mlless.status(run_folder).step or 0
    eventually(lambda: (mlless.status(run_folder).step or 0) > seen, "it goes on", PATIENCE)
    assert mlless.stop(run_folder, within=PATIENCE).stop_reason == "interrupted"
    assert names(run_folder) == FINISHED
    eventually(lambda: not any(temporary.iterdir()), "what Lithops has stored goes", PATIENCE)


def test_another_supervisor_goes_on_with_other_functions(functions: Functions, temporary: Path) -> None:
    dead, watching = functions.supervisor, functions.watch()
    try:
        name, gone = functions.lose(dead)
        eventually(
            lambda: (job := functions.status.job) is not None and job.pid != dead, "another one", PATIENCE
        )
        assert functions.status.state != "lost"
        eventually(lambda: not any(map(alive, gone)), "the functions of the dead one end", PATIENCE)
        assert functions.keys(name) == []
        (loss,) = functions.look().losses
        assert loss.startswith(f"the supervisor, process {dead}, died by signal SIGKILL after step")
        assert loss in functions.command("status").stdout
        stopped = functions.command("stop")
        assert (stopped.returncode, stopped.stderr) == (0, "")
        output, errors = watching.communicate(timeout=PATIENCE)
    finally:
        watching.kill()
        watching.communicate()
    assert watching.returncode == 130
    assert errors == f"interrupted: the model so far is in {functions.run}\n"
    assert "result    rmse" in output
    run = mlless.attach(functions.run, verbose=False)
    assert [record.step for record in run.history()] == list(range(run.summary.steps))
    assert len(run.summary.resumed) == 1
    functions.assert_nothing_left()
    assert names(Path(functions.run)) == FINISHED


def test_a_lost_job_is_cleaned_and_resumed(functions: Functions, redis_server: Server) -> None:
    name, gone = functions.lose(*functions.everyone[:2])
    eventually(lambda: not any(map(alive, gone)), "its functions end", PATIENCE)
    (told,) = (line for line in functions.command("status").stdout.splitlines() if "mlless resume" in line)
    options = ["--detach", "--store", redis_server.url, "--runtime", "lithops"]
    assert shlex.split(told)[1:] == ["mlless", "resume", str(functions.run), *options]
    cleaned = functions.command("clean")
    assert (cleaned.returncode, cleaned.stderr) == (0, "")
    assert f"keys of {name} on redis://127.0.0.1" in cleaned.stdout
    assert functions.keys(name) == []
    resumed = functions.command("resume", *options)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    functions.look()
    assert functions.keys(functions.name)
    assert mlless.stop(functions.run, within=PATIENCE).stop_reason == "interrupted"
    assert len(read_summary(Directory(Path(functions.run))).resumed) == 1
    functions.assert_nothing_left()
