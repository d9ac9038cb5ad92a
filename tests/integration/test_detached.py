"""Jobs that outlive whoever has started them: real processes, whose caller's session is closed."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from integration.jobs import COMMAND, PATIENCE, DetachedJob, alive, eventually, job
from servers.redis import Server

import mlless
from mlless.artifact import MODEL
from mlless.channels.opening import open_objects
from mlless.data.dataset import Dataset
from mlless.driver import run_job
from mlless.errors import MLLessError, UsageError, WorkerLost
from mlless.locations import Directory, place_of
from mlless.losses import LEAST
from mlless.report.history import CHECKPOINT, HISTORY, SUMMARY, read_history, read_summary
from mlless.report.lease import VARIABLE
from mlless.report.lock import GUARD, LOCK
from mlless.report.underway import LOG, UNDERWAY, read_underway

FINISHED = {MODEL, HISTORY, SUMMARY, LOG}
# The command line as it is on another machine, which sees none of the job's processes.
ELSEWHERE = [
    sys.executable,
    "-c",
    "import socket; socket.gethostname = lambda: 'elsewhere'; from mlless.cli import main; main()",
]


def names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()}


@pytest.fixture
def detached(ratings: Dataset, run_folder: Path, channels: Path) -> Iterator[DetachedJob]:
    started = DetachedJob(ratings, run_folder, channels, "--workers", "2")
    assert (started.done.returncode, started.done.stderr) == (0, "")
    started.look()
    yield started
    started.end()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_detached_job_is_the_same_training(
    ratings: Dataset, run_folder: Path, tmp_path: Path, channels: Path, workers: int
) -> None:
    started = DetachedJob(ratings, run_folder, channels, "--workers", str(workers), epochs=3)
    assert (started.done.returncode, started.done.stderr) == (0, "")
    assert f"mlless attach {run_folder}" in started.done.stdout
    run = mlless.attach(run_folder, verbose=False)
    assert run.summary.stop_reason == "epochs"
    started.assert_nothing_left()
    assert names(run_folder) == FINISHED
    here = mlless.train(ratings, out=tmp_path / "here", workers=workers, epochs=3, verbose=False)
    assert (run_folder / MODEL).read_bytes() == (tmp_path / "here" / MODEL).read_bytes()
    assert len(run.history()) == len(here.history())
    log = (run_folder / LOG).read_text()
    assert "epoch   1.0" in log
    assert "result    rmse" in log


def test_nothing_of_the_callers_holds_it(detached: DetachedJob) -> None:
    for pid in detached.everyone:
        assert os.getsid(pid) != os.getsid(0)
        tty = subprocess.run(["ps", "-o", "tty=", "-p", str(pid)], capture_output=True, text=True, check=True)
        assert tty.stdout.strip(" ?\n") == ""
    guardian, supervisor, _, *workers = detached.everyone
    assert len(workers) == 2
    assert os.getpgid(supervisor) == os.getpgid(guardian)
    assert os.getsid(guardian) != guardian  # and can come by no terminal


def test_a_terminal_that_is_closed_leaves_it_alone(
    ratings: Dataset, run_folder: Path, channels: Path
) -> None:
    """A whole session with its terminal, from which it was started, goes away."""
    command = [*COMMAND, "train", ratings.location, "--out", str(run_folder), "--epochs", "1000000"]
    command += ["--workers", "2", "--detach"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["MLLESS_CHANNEL_DIR"] = str(channels)
        shell = subprocess.list2cmdline(command)
        os.execv("/bin/sh", ["/bin/sh", "-c", f"{shell}; echo left with $?; read _"])
    shown = b""
    while b"left with" not in shown:
        shown += os.read(terminal, 4096)
    assert b"left with 0" in shown
    os.close(terminal)
    os.waitpid(pid, 0)
    before = mlless.status(run_folder)
    assert before.state == "running" or before.step is None
    seen = before.step or 0
    eventually(lambda: (mlless.status(run_folder).step or 0) > seen, "it goes on")
    assert mlless.stop(run_folder, within=PATIENCE).stop_reason == "interrupted"
    assert names(run_folder) == FINISHED


def test_who_attaches_sees_it_to_its_end(detached: DetachedJob) -> None:
    watching = detached.watch()
    try:
        assert watching.stdout is not None
        for line in watching.stdout:
            if line.startswith("epoch   2.0"):
                break
        stopped = detached.command("stop")
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert "finished (interrupted)" in stopped.stdout
        output, errors = watching.communicate(timeout=PATIENCE)
    finally:
        watching.kill()
    assert watching.returncode == 130
    assert errors == f"interrupted: the model so far is in {detached.run}\n"
    assert "result    rmse" in output
    detached.assert_nothing_left()
    assert names(detached.run) == FINISHED
    told = detached.command("attach", "--json")  # of a run that is over, the same
    assert told.returncode == 130
    assert msgspec.json.decode(told.stdout)["stop_reason"] == "interrupted"


def test_ctrl_c_leaves_the_job_alone(detached: DetachedJob) -> None:
    watching = detached.watch()
    assert watching.stdout is not None
    watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 130
    assert errors.startswith("the job goes on: mlless attach")
    assert detached.status.state == "running"
    assert all(map(alive, detached.everyone))


def test_a_signal_to_the_guardian_ends_the_job_in_order(detached: DetachedJob) -> None:
    os.kill(detached.everyone[0], signal.SIGTERM)
    detached.assert_nothing_left()
    assert detached.status.stop_reason == "interrupted"
    assert names(detached.run) == FINISHED


@pytest.mark.parametrize("workers", [1, 2])
def test_a_supervisor_that_is_killed_is_followed_by_another(
    ratings: Dataset, run_folder: Path, channels: Path, workers: int
) -> None:
    """It resumes the run."""
    started = DetachedJob(ratings, run_folder, channels, "--workers", str(workers))
    before = started.look()
    eventually(lambda: CHECKPOINT in names(run_folder), "a checkpoint")
    dead, everyone = started.supervisor, started.everyone[1:]
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: (job := started.status.job) is not None and job.pid != dead, "another one")
    assert not any(map(alive, everyone))
    assert started.status.state != "lost"
    now = started.look()
    assert now.guardian == before.guardian
    (loss,) = now.losses
    assert loss.startswith(f"the supervisor, process {dead}, died by signal SIGKILL after step")
    assert loss in started.command("status").stdout
    assert mlless.stop(run_folder, within=PATIENCE).stop_reason == "interrupted"
    run = mlless.attach(run_folder, verbose=False)
    assert [record.step for record in run.history()] == list(range(run.summary.steps))
    assert len(run.summary.resumed) == 1
    assert loss in (run_folder / LOG).read_text()
    assert "the job starts anew" not in (run_folder / LOG).read_text()
    started.assert_nothing_left()
    assert names(run_folder) == FINISHED


def test_who_kills_everyone_loses_the_job_and_may_resume_it(detached: DetachedJob) -> None:
    eventually(lambda: CHECKPOINT in names(detached.run), "a checkpoint")
    detached.look()
    guardian, supervisor, *_ = detached.everyone
    os.kill(guardian, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    detached.assert_nothing_left()
    assert detached.status.state == "lost"
    assert f"mlless resume {detached.run} --detach\n" in detached.command("status").stdout
    with pytest.raises(WorkerLost, match="the job was killed"):
        mlless.attach(detached.run, verbose=False)
    assert detached.command("attach").returncode == 6
    resumed = detached.command("resume", "--detach")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    detached.look()
    assert mlless.stop(detached.run, within=PATIENCE).stop_reason == "interrupted"
    detached.assert_nothing_left()
    assert len(read_summary(Directory(detached.run)).resumed) == 1


def test_a_supervisor_that_dies_again_and_again_is_given_up(detached: DetachedJob) -> None:
    eventually(lambda: CHECKPOINT in names(detached.run), "a checkpoint")
    guardian = detached.everyone[0]

    def is_over_or_goes_on() -> bool:
        job = detached.status.job
        return not alive(guardian) or (job is not None and job.pid != detached.supervisor)

    for _ in range(LEAST + 1):
        os.kill(detached.supervisor, signal.SIGKILL)
        eventually(is_over_or_goes_on, "another one, or the end")
        if not alive(guardian):
            break
        detached.look()
    assert not alive(guardian)
    assert detached.status.state == "lost"
    assert "that was once too often" in (detached.run / LOG).read_text()
    eventually(lambda: not any(map(alive, detached.everyone)), "processes end")
    # One may have been killed before it could say where its folder is: the next job removes that.
    assert detached.command("resume", "--detach").returncode == 0
    detached.look()
    assert mlless.stop(detached.run, within=PATIENCE).stop_reason == "interrupted"
    detached.assert_nothing_left()


def test_the_job_goes_on_without_its_guardian(detached: DetachedJob) -> None:
    os.kill(detached.everyone[0], signal.SIGKILL)
    assert detached.status.state == "running"
    assert mlless.stop(detached.run, within=PATIENCE).stop_reason == "interrupted"
    detached.assert_nothing_left()
    assert names(detached.run) == FINISHED | {GUARD}
    run_job(job(open_data(detached), epochs=1), open_data(detached), detached.run, overwrite=True)


def open_data(detached: DetachedJob) -> Dataset:
    return mlless.open_dataset(read_summary(Directory(detached.run)).job.dataset)


def test_errors_are_told_where_it_was_asked_for(ratings: Dataset, run_folder: Path, channels: Path) -> None:
    bad = DetachedJob(ratings, run_folder, channels, "--workers", "100000")
    assert bad.done.returncode == 2
    assert bad.done.stderr.startswith("error: more workers than groups of rows")
    assert not run_folder.exists()
    # What only the job itself finds out.
    with pytest.raises(MLLessError, match=r"127\.0\.0\.1:1") as caught:
        mlless.detach(ratings, out=run_folder, epochs=1, store="redis://:s3cret@127.0.0.1:1")
    assert caught.value.exit_code == 5
    assert "s3cret" not in (run_folder / LOG).read_text()
    assert not {LOCK, GUARD, UNDERWAY} & names(run_folder)
    assert "error: " in (run_folder / LOG).read_text()


def test_a_job_that_fails_later_is_told_to_who_attaches(
    ratings: Dataset, run_folder: Path, channels: Path
) -> None:
    started = DetachedJob(ratings, run_folder, channels, "--workers", "2", "--on-loss", "fail")
    started.look()
    eventually(lambda: started.status.model_step > 0, "a best model")
    os.kill(started.everyone[-1], signal.SIGKILL)
    started.assert_nothing_left()
    assert started.status.state == "failed"
    told = started.command("attach")
    assert told.returncode == 6
    first, *between, last = told.stderr.splitlines()
    how = f"mlless resume {run_folder} --detach"
    assert all(line.startswith("it can be resumed from its checkpoint") for line in between)
    assert all(line.endswith(f": {how}") for line in between)
    seen = started.command("status").stdout
    assert "state     failed\n" in seen
    assert f"{how}\n" in seen
    assert first.startswith("error: worker ")
    assert last == f"the best model so far, that of step {started.status.model_step}, is in {run_folder}"
    assert FINISHED <= names(run_folder) <= FINISHED | {CHECKPOINT}


def test_two_jobs_in_one_folder_are_refused(detached: DetachedJob, ratings: Dataset) -> None:
    with pytest.raises(UsageError, match="another job writes to this run's folder"):
        mlless.detach(ratings, out=detached.run, overwrite=True)
    assert detached.status.state == "running"


def test_the_supervisor_is_on_the_bill(ratings: Dataset, run_folder: Path, tmp_path: Path) -> None:
    mlless.detach(ratings, out=run_folder, epochs=3, workers=2, tariff="published-ibm")
    bill = mlless.attach(run_folder, verbose=False).bill
    assert bill is not None
    items = {item.what: item.quantity for item in bill.items}
    # Two functions of 2 GB that start after it, and end before it.
    assert 0 < items["functions"] < 2 * items["supervisor"]
    here = mlless.train(
        ratings, out=tmp_path / "here", epochs=1, workers=2, tariff="published-ibm", verbose=False
    )
    assert here.bill is not None
    assert "supervisor" not in {item.what for item in here.bill.items}


def test_passwords_are_in_no_file_and_on_no_command_line(
    ratings: Dataset, run_folder: Path, secure_redis_server: Server
) -> None:
    found = mlless.detach(ratings, out=run_folder, epochs=10**6, workers=2, store=secure_redis_server.url)
    assert found.job is not None
    try:
        listing = subprocess.run(["ps", "-Awwo", "args="], capture_output=True, text=True, check=True)
        ours = [line for line in listing.stdout.splitlines() if "import mlless" in line]
        assert any("mlless.detached.supervising" in line for line in ours)
        assert not any("s3cret" in line for line in ours)
        for path in run_folder.iterdir():
            assert b"s3cret" not in path.read_bytes()
    finally:
        mlless.stop(run_folder, within=PATIENCE)
    with secure_redis_server.client() as client:
        assert client.keys(f"{found.job.addresses.job}*" if found.job.addresses else "*") == []
    assert read_history(Directory(run_folder))


@pytest.fixture
def soon_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in a bucket is known to be lost after four seconds."""
    monkeypatch.setenv(VARIABLE, "4")


@pytest.mark.slow
@pytest.mark.usefixtures("s3", "soon_abandoned")
def test_a_run_in_a_bucket_is_seen_followed_and_stopped_from_another_machine(
    ratings: Dataset, bucket: str, channels: Path
) -> None:
    """Also while one supervisor follows another."""
    run = f"s3://{bucket}/runs/far"
    place = place_of(run)
    started = DetachedJob(ratings, run, channels, "--workers", "2")
    assert (started.done.returncode, started.done.stderr) == (0, "")
    before, dead = started.look(), started.supervisor
    log = Path(before.log)
    assert "mini-batches an epoch" in log.read_text()  # on this machine, as long as the job runs
    watching = started.watch(ELSEWHERE)
    try:
        seen = started.command("status", command=ELSEWHERE)
        assert f"running, detached process {dead} of {socket.gethostname()}" in seen.stdout
        assert f"mlless stop {run}" in seen.stdout
        eventually(lambda: CHECKPOINT in open_objects(place).names(), "a checkpoint")
        os.kill(dead, signal.SIGKILL)
        assert mlless.status(run).state in ("starting", "running")
        eventually(lambda: (job := read_underway(place)) is not None and job.pid != dead, "another one")
        started.look()
        assert watching.stdout is not None
        assert any("the job is resumed, with 2 workers" in line for line in watching.stdout)
        stopped = started.command("stop", command=ELSEWHERE)
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert "finished (interrupted)" in stopped.stdout
        output, errors = watching.communicate(timeout=60)
        assert watching.returncode == 130
        assert errors == f"interrupted: the model so far is in {run}\n"
        assert "result    rmse" in output
        started.assert_nothing_left()
        eventually(lambda: open_objects(place).names() == FINISHED, "the log")
        eventually(lambda: not log.exists(), "the log of this machine goes")
    finally:
        watching.kill()
        watching.communicate()
        started.end()
    assert b"died by signal SIGKILL" in open_objects(place).get(LOG)
    assert len(read_summary(place).resumed) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("s3", "soon_abandoned")
def test_a_run_in_a_bucket_is_seen_to_be_lost_from_another_machine(
    ratings: Dataset, bucket: str, channels: Path
) -> None:
    started = DetachedJob(ratings, f"s3://{bucket}/runs/lost", channels, "--workers", "2")
    started.look()
    guardian, supervisor, *_ = started.everyone
    watching = started.watch(ELSEWHERE)
    try:
        assert watching.stdout is not None
        assert any(line.startswith("epoch   1.0") for line in watching.stdout)
        os.kill(guardian, signal.SIGKILL)
        os.kill(supervisor, signal.SIGKILL)
        _, errors = watching.communicate(timeout=60)
    finally:
        watching.kill()
        started.end()
    assert watching.returncode == 6
    assert "the job was killed. See mlless status" in errors
    seen = started.command("status", command=ELSEWHERE)
    assert f"lost: its detached process {supervisor} of {socket.gethostname()} is gone" in seen.stdout
    assert f"mlless resume {started.run} --detach\n" in seen.stdout
    mlless.clean(started.run)
    eventually(lambda: not any(channels.iterdir()), "channel files go")
