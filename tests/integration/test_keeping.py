"""What is left of a training that does not come to its end: the best model so far, and how it ended."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from integration.jobs import PATIENCE, DriverProcess, children, eventually, job

import mlless
from mlless.artifact import MODEL
from mlless.data.dataset import Dataset, open_dataset
from mlless.driver import run_job
from mlless.errors import UsageError, WorkerFailed
from mlless.locations import Directory
from mlless.records import StepRecord, Summary
from mlless.report.history import CHECKPOINT, HISTORY, SUMMARY, read_history, read_summary
from mlless.report.lock import LOCK
from mlless.report.recorded import read_runs

COMMAND = [sys.executable, "-m", "mlless"]


@pytest.fixture
def driver(ratings: Dataset, run_folder: Path, channels: Path) -> Iterator[DriverProcess]:
    process = DriverProcess(ratings, run_folder, channels)
    yield process
    process.end()


def best_is_kept(run: Path) -> bool:
    """Return whether the summary tells of a model."""
    return (run / SUMMARY).exists() and read_summary(Directory(run)).model_step > 0


def assert_saved(run: Path, dataset: Dataset, stop_reason: str) -> Summary:
    """Fail unless a run that is not finished can be used, its summary being that of its model."""
    summary = read_summary(Directory(run))
    assert summary.stop_reason == stop_reason
    records = read_history(Directory(run))
    (scored,) = [record for record in records if record.step == summary.model_step]
    assert scored.heldout == summary.heldout
    # Between model and summary everyone may have been killed.
    later = [record.heldout["rmse"] for record in records if record.heldout and record.step >= scored.step]
    rmse = mlless.evaluate(run, dataset.location)["rmse"]
    assert rmse == pytest.approx(min(later, key=lambda value: abs(value - rmse)), rel=1e-5)
    assert stop_reason == "running" or rmse == pytest.approx(summary.heldout["rmse"], rel=1e-5)
    with pytest.raises(UsageError, match="under way, or has failed"):
        read_runs([run])
    with pytest.raises(UsageError, match="`overwrite`"):
        run_job(job(dataset, epochs=1), dataset, run)
    return summary


@pytest.mark.parametrize("workers", [1, 3])
def test_who_kills_everyone_leaves_the_best_model(
    ratings: Dataset, run_folder: Path, tmp_path: Path, workers: int
) -> None:
    training = subprocess.Popen(
        train(ratings, run_folder, "--workers", str(workers), epochs=10**6),
        stdout=subprocess.DEVNULL,
        env={**os.environ, "MLLESS_CHANNEL_DIR": str(tmp_path)},
    )
    try:
        eventually(lambda: best_is_kept(run_folder), "a best model")
        for zygote in children(training.pid):
            for worker in [*children(zygote), zygote]:
                os.kill(worker, signal.SIGKILL)
    finally:
        training.kill()
        training.wait()
    assert_saved(run_folder, ratings, "running")
    assert (run_folder / LOCK).exists()
    again = run_job(job(ratings, epochs=1), ratings, run_folder, overwrite=True)
    assert again.summary.stop_reason == "epochs"
    assert {path.name for path in run_folder.iterdir()} == {MODEL, HISTORY, SUMMARY}


def test_a_lost_worker_leaves_the_best_model(ratings: Dataset, run_folder: Path, channels: Path) -> None:
    driver = DriverProcess(ratings, run_folder, channels, on_loss="fail")
    eventually(lambda: best_is_kept(run_folder), "a best model")
    eventually((run_folder / CHECKPOINT).exists, "a checkpoint")
    os.kill(driver.workers[1], signal.SIGKILL)
    _, errors = driver.output()
    summary = assert_saved(run_folder, ratings, "failed")
    assert re.match(r"worker 1 died in step \d+: found signal SIGKILL", summary.error or "")
    *_, last = errors.splitlines()
    assert last == f"the best model so far, that of step {summary.model_step}, is in {run_folder}"
    driver.assert_nothing_left()
    assert {path.name for path in run_folder.iterdir()} == {MODEL, HISTORY, SUMMARY, CHECKPOINT}


def test_a_failure_saves_what_there_was_no_time_for(ratings: Dataset, run_folder: Path) -> None:
    """Long before the first second has passed."""

    def listen(record: StepRecord) -> None:
        if record.step == 60:
            raise ZeroDivisionError("of a listener")

    for workers in (1, 2):
        with pytest.raises(ZeroDivisionError) as caught:
            run_job(job(ratings, workers=workers), ratings, run_folder / str(workers), listen=listen)
        summary = assert_saved(run_folder / str(workers), ratings, "failed")
        assert summary.error == "of a listener"
        assert summary.steps == 61
        assert caught.value.__notes__[-1].startswith(
            f"the best model so far, that of step {summary.model_step}, is in "
        )


def test_a_run_that_never_came_to_a_model_makes_way(ratings: Dataset, run_folder: Path) -> None:
    def listen(record: StepRecord) -> None:
        raise ZeroDivisionError("mysql://user:a-secret@server/")

    with pytest.raises(ZeroDivisionError) as caught:
        run_job(job(ratings, workers=1), ratings, run_folder, listen=listen)
    assert not hasattr(caught.value, "__notes__")
    summary = read_summary(Directory(run_folder))
    assert (summary.stop_reason, summary.model_step) == ("failed", 0)
    assert summary.error == "mysql://user:***@server/"
    assert run_job(job(ratings, epochs=1), ratings, run_folder).summary.error is None
    (run_folder / MODEL).unlink()
    with pytest.raises(UsageError, match="not a run's folder"):  # whatever has become of its model
        run_job(job(ratings, epochs=1), ratings, run_folder)


def test_a_run_is_replaced_by_the_first_new_best_model(ratings: Dataset, run_folder: Path) -> None:
    run_job(job(ratings, workers=2, epochs=1), ratings, run_folder)
    before = {path.name: path.read_bytes() for path in run_folder.iterdir()}
    seen: list[dict[str, bytes]] = []

    def listen(record: StepRecord) -> None:
        seen.append({name: (run_folder / name).read_bytes() for name in before})
        if best_is_kept(run_folder) and read_summary(Directory(run_folder)).stop_reason == "running":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_job(job(ratings, workers=2, epochs=10**6), ratings, run_folder, overwrite=True, listen=listen)
    assert seen[0] == before
    assert_saved(run_folder, ratings, "failed")


def test_the_summary_says_that_a_job_runs(ratings: Dataset, run_folder: Path) -> None:
    seen = []

    def listen(record: StepRecord) -> None:
        seen.append(read_summary(Directory(run_folder)).stop_reason)

    run = run_job(job(ratings, epochs=1), ratings, run_folder, listen=listen)
    assert set(seen) == {"running"}
    assert run.summary.stop_reason == read_summary(run.place).stop_reason == "epochs"


def test_the_bill_so_far_is_in_the_summary_of_a_failure(ratings: Dataset, run_folder: Path) -> None:
    def listen(record: StepRecord) -> None:
        if record.step == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        mlless.train(ratings, out=run_folder, workers=2, tariff="published-ibm", listen=listen, verbose=False)
    bill = read_summary(Directory(run_folder)).bill
    assert bill is not None
    assert bill.total > 0
    assert caught.value.__notes__[0].startswith("it has cost $")


# The terminal


def train(dataset: Dataset, run: Path, *more: str, epochs: int = 3) -> list[str]:
    return [*COMMAND, "train", dataset.location, "--out", str(run), "--epochs", str(epochs), *more]


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminal_that_is_closed_ends_a_training_in_order(
    ratings: Dataset, run_folder: Path, tmp_path: Path, workers: int, ignored: bool
) -> None:
    """And nothing happens where SIGHUP is ignored, as by nohup."""
    training = subprocess.Popen(
        [
            *(["nohup"] if ignored else []),
            *train(ratings, run_folder, "--workers", str(workers), epochs=10**6),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLLESS_CHANNEL_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert training.stdout is not None
        for line in training.stdout:
            if line.startswith("epoch   1.0"):
                break
        training.send_signal(signal.SIGHUP)
        training.send_signal(signal.SIGHUP)  # by the shell and by the system
        if ignored:
            eventually(lambda: best_is_kept(run_folder), "it goes on")
            training.send_signal(signal.SIGTERM)
        _, errors = training.communicate(timeout=PATIENCE)
    finally:
        training.kill()
    assert training.returncode == 130
    assert f"interrupted: the model so far is in {run_folder}" in errors
    assert read_summary(Directory(run_folder)).stop_reason == "interrupted"


@pytest.mark.parametrize("workers", [1, 2])
def test_the_live_display_of_a_terminal_that_is_gone(
    ratings: Dataset, run_folder: Path, workers: int
) -> None:
    """Its window is closed: a hang-up, and nothing can be written to it any more."""
    command = train(ratings, run_folder, "--workers", str(workers), epochs=10**6)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    shown = b""
    while b"epoch   2.0" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    ended: list[int] = []

    def has_ended() -> bool:
        done, status = os.waitpid(pid, os.WNOHANG)
        ended.append(status)
        return done == pid

    try:
        eventually(has_ended, "the training ends")
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(ended[-1]) == 130
    assert read_summary(Directory(run_folder)).stop_reason == "interrupted"
    assert mlless.load(run_folder).kind == "mf"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "shell", ["{} | head -n 2", "{} > /dev/full", "{} > /dev/full 2>&1", "{} --json > /dev/full"]
)
def test_output_that_no_one_reads_does_not_end_a_training(
    ratings: Dataset, run_folder: Path, workers: int, shell: str
) -> None:
    command = subprocess.list2cmdline(train(ratings, run_folder, "--workers", str(workers), epochs=30))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell.format(command)}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    summary = read_summary(Directory(run_folder))
    assert summary.stop_reason == "epochs"
    assert len(read_history(Directory(run_folder))) == summary.steps
    assert mlless.evaluate(run_folder, ratings.location)["rmse"] == pytest.approx(
        summary.heldout["rmse"], rel=1e-5
    )


# The disk


@pytest.mark.parametrize("workers", [1, 2])
def test_no_room_for_the_history_does_not_end_a_training(
    ratings: Dataset, run_folder: Path, tmp_path: Path, workers: int
) -> None:
    limit = 100_000
    code = (
        "import resource, mlless\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"mlless.train({ratings.location!r}, model='mf', workers={workers}, factors=2, epochs=40, l2=0.001,\n"
        f"    batch_size=200, out={str(run_folder)!r}, verbose=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (
        done.stderr.count("history.jsonl ends here, the training goes on: cannot write: File too large") == 1
    )
    summary = read_summary(Directory(run_folder))
    assert summary.stop_reason == "epochs"
    records = read_history(Directory(run_folder))  # whole lines
    assert [record.step for record in records] == list(range(len(records)))
    assert 10 < len(records) < summary.steps
    assert mlless.evaluate(run_folder, ratings.location)["rmse"] == pytest.approx(
        summary.heldout["rmse"], rel=1e-5
    )


def test_no_room_for_a_best_model_is_told(ratings: Dataset, run_folder: Path, tmp_path: Path) -> None:
    limit = 30_000
    code = (
        "import resource, sys, mlless\n"
        "from mlless.errors import ChannelError\n"
        "from mlless.records import StepRecord\n"
        "def listen(record):\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        f"mlless.train({ratings.location!r}, model='mf', workers=1, factors=40, epochs=10**6, max_time=3,\n"
        f"    out={str(run_folder)!r}, listen=listen, verbose=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "a model could not be put into the run's place" in done.stderr
    assert read_summary(Directory(run_folder)).stop_reason == "failed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 120 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_a_full_disk_does_not_take_is_kept_elsewhere(
    ratings: Dataset, small_disk: Path, workers: int
) -> None:
    run = small_disk / "run"
    more = ["--workers", str(workers), "--factors", "40", "--batch-size", "200", "--local-steps", "1"]
    done = subprocess.run(
        train(ratings, run, *more, epochs=30), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 5
    assert done.stderr.count("history.jsonl ends here, the training goes on") == 1
    folder = re.search(r"cannot write: No space left on device. It is kept in (\S+):", done.stderr)
    assert folder
    assert mlless.load(folder[1]).kind == "mf"
    shutil.rmtree(folder[1])
    assert read_summary(Directory(run)).stop_reason == "failed"


# The data set and the run's folder


def test_a_data_set_that_is_replaced_is_named(ratings: Dataset, run_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(ratings.location, copy)
    dataset = open_dataset(copy)

    def listen(record: StepRecord) -> None:
        if record.step == 30:
            mlless.partition(Path(ratings.location).parent / "ratings.csv", copy, seed=1, overwrite=True)

    # One leaves, and its groups come to the other.
    def leavers(record: StepRecord) -> list[int]:
        return [1] if record.step == 30 else []

    spec = msgspec.structs.replace(job(dataset, workers=2, epochs=100), dataset=str(copy))
    with pytest.raises(
        WorkerFailed, match=r"the data set changed while it was in use.*[Ss]tart again"
    ) as caught:
        run_job(spec, dataset, run_folder, listen=listen, leavers=leavers)
    assert caught.value.exit_code == 4
    summary = read_summary(Directory(run_folder))
    assert summary.stop_reason == "failed"
    assert summary.model_step > 0
    assert mlless.load(run_folder).kind == "mf"


def test_two_jobs_in_one_folder_are_refused(
    driver: DriverProcess, ratings: Dataset, run_folder: Path
) -> None:
    with pytest.raises(UsageError, match="another job writes to this run's folder"):
        run_job(job(ratings), ratings, run_folder, overwrite=True)
    assert (run_folder / LOCK).exists()
    driver.process.send_signal(signal.SIGTERM)
    output, _ = driver.output()
    assert "stopped interrupted" in output
    assert not (run_folder / LOCK).exists()
