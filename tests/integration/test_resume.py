"""A training whose driver was killed, or that failed, goes on from its checkpoint."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from integration.jobs import DriverProcess, eventually, job
from servers.s3 import S3Server

import mlless
from mlless.artifact import MODEL, read_artifact, write_artifact
from mlless.channels.opening import open_objects
from mlless.data.dataset import Dataset
from mlless.driver import run_job
from mlless.errors import DatasetError, JobError, UsageError
from mlless.job import Factorization, JobSpec, Nesterov
from mlless.locations import Directory, Place, place_of
from mlless.mark import SHARE
from mlless.records import RUNNING, StepRecord, Summary
from mlless.report import lease, underway
from mlless.report.history import CHECKPOINT, HISTORY, PART, SUMMARY, read_history, read_summary
from mlless.report.left import Left, resuming

EPOCHS = 4


class Crash(Exception):
    """What ends a job in the middle."""


def spec_of(dataset: Dataset, **wishes: object) -> JobSpec:
    return job(dataset, **{"workers": 3, "epochs": EPOCHS, "checkpoint_every": 0, **wishes})


def crash(spec: JobSpec, dataset: Dataset, run: Path, *, after: int = 30) -> list[StepRecord]:
    """Run a job that fails after a step; return the records of those before."""
    seen: list[StepRecord] = []

    def listen(record: StepRecord) -> None:
        seen.append(record)
        if record.step >= after:
            eventually((run / CHECKPOINT).exists, "a checkpoint, which another thread writes")
            raise Crash

    with pytest.raises(Crash):
        run_job(spec, dataset, run, listen=listen)
    return seen


def epochs_of(left: Left) -> int:
    """Return the epochs that a job had behind it at its checkpoint."""
    assert left.stand is not None
    return left.stand.plan.epoch


@pytest.fixture
def driver(ratings: Dataset, run_folder: Path, channels: Path) -> Iterator[DriverProcess]:
    process = DriverProcess(ratings, run_folder, channels, checkpoint_every=0.0)
    yield process
    process.end()


def assert_whole(run: Place, dataset: Dataset, epochs: int) -> list[StepRecord]:
    """Fail unless the history has each step once, each row once an epoch, and time that goes on."""
    records = read_history(run)
    assert [record.step for record in records] == list(range(len(records)))
    assert all(one.time < two.time for one, two in itertools.pairwise(records))
    rows = sum(file.rows for file in dataset.manifest.train)
    taken = Counter[int]()
    for before, record in itertools.pairwise([None, *records]):
        taken[int(before.epoch) if before else 0] += record.samples if record else 0
    assert [taken[epoch] for epoch in range(epochs)] == [rows] * epochs
    return records


def test_a_killed_driver_is_resumed(ratings: Dataset, run_folder: Path, driver: DriverProcess) -> None:
    eventually((run_folder / CHECKPOINT).exists, "a checkpoint")
    driver.wait_for_step(100)
    os.kill(driver.process.pid, signal.SIGKILL)
    driver.assert_nothing_left()
    killed = read_summary(Directory(run_folder))
    assert killed.stop_reason == "running"
    with resuming(run_folder) as left:
        epochs = epochs_of(left) + 3
        step, seconds = left.step, left.seconds
    run = mlless.resume(run_folder, epochs=epochs, verbose=False)
    assert run.summary.stop_reason == "epochs"
    assert run.summary.resumed == (step,)
    assert run.summary.seconds > seconds
    records = assert_whole(Directory(run_folder), ratings, epochs)
    (first,) = [record for record in records if record.rewound_to is not None]
    assert (first.step, first.rewound_to) == (step, step)
    assert first.time > seconds
    assert any("the job is resumed, with 3 workers" in line for line in first.losses)
    assert run.summary.steps == len(records)
    assert {path.name for path in run_folder.iterdir()} == {MODEL, HISTORY, SUMMARY}
    rmse = mlless.evaluate(run_folder, ratings.location)["rmse"]
    assert rmse == pytest.approx(run.summary.heldout["rmse"], rel=1e-5)


def test_what_runs_is_not_resumed(ratings: Dataset, run_folder: Path, driver: DriverProcess) -> None:
    with pytest.raises(UsageError, match=r"another job writes to this run.*nothing to resume as long as"):
        mlless.resume(run_folder)
    driver.wait_for_step(40)  # and it is not disturbed


def test_of_two_who_resume_the_second_is_refused(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    refused: list[UsageError] = []

    def listen(record: StepRecord) -> None:
        if not refused:
            with pytest.raises(UsageError, match="another job writes to this run") as caught:
                mlless.resume(run_folder)
            refused.append(caught.value)

    assert mlless.resume(run_folder, verbose=False, listen=listen).summary.stop_reason == "epochs"
    assert refused


@pytest.mark.parametrize("workers", [2, 5])
def test_it_goes_on_with_another_number_of_workers(ratings: Dataset, run_folder: Path, workers: int) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    run = mlless.resume(run_folder, workers=workers, verbose=False)
    records = assert_whole(Directory(run_folder), ratings, EPOCHS)
    assert records[-1].workers == run.summary.job.workers == workers
    assert run.summary.members == (3, workers)


def test_a_run_may_be_resumed_again_and_again(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder, after=10)
    steps = []
    for after in (25, 40):
        with resuming(run_folder) as left:
            steps.append(left.step)

        def listen(record: StepRecord, after: int = after) -> None:
            if record.step >= after:
                raise Crash

        with pytest.raises(Crash) as caught:
            mlless.resume(run_folder, verbose=False, listen=listen)
        (note,) = [note for note in caught.value.__notes__ if "can be resumed" in note]
        assert note.endswith(f"mlless resume {run_folder}")
    with resuming(run_folder) as left:
        steps.append(left.step)
    run = mlless.resume(run_folder, verbose=False)
    assert run.summary.resumed == tuple(steps)
    assert run.summary.checkpoints.count > 10
    assert_whole(Directory(run_folder), ratings, EPOCHS)


def test_the_model_comes_out_as_it_would_have(ratings: Dataset, run_folder: Path, tmp_path: Path) -> None:
    spec = spec_of(ratings, epochs=8)
    whole = run_job(spec, ratings, tmp_path / "whole").summary.heldout["rmse"]
    crash(spec, ratings, run_folder, after=40)
    assert mlless.resume(run_folder, verbose=False).summary.heldout["rmse"] == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("pattern", [None, "scatter"])
def test_without_a_residual_the_model_is_the_same_bits(
    ratings: Dataset, run_folder: Path, tmp_path: Path, pattern: Literal["scatter"] | None
) -> None:
    """Of plain gradient steps whose changes are all published: nothing is lost with a worker then."""
    spec = spec_of(ratings, sync="bsp", optimizer="nesterov", learning_rate=0.1)
    still = msgspec.structs.replace(spec.optimizer, momentum=0.0)
    model = msgspec.structs.replace(spec.model, l2=0.0)
    spec = msgspec.structs.replace(spec, optimizer=still, model=model)
    run_job(spec, ratings, tmp_path / "whole")
    crash(spec, ratings, run_folder)
    run = mlless.resume(run_folder, verbose=False, pattern=pattern)
    assert run.summary.job.pattern == (pattern or "broadcast")
    assert (run_folder / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


# The best model


def test_the_best_model_of_before_may_stay_the_best(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder, after=60)
    before = read_artifact(Directory(run_folder))
    assert before.description.score is not None
    score = before.description.score._replace(heldout={"rmse": 0.001}, value=0.001)
    about = msgspec.structs.replace(before.description, score=score)
    write_artifact(Directory(run_folder), replace(before, description=about))
    summary = mlless.resume(run_folder, verbose=False).summary
    assert (summary.model_step, summary.heldout, summary.restored) == (score.step, {"rmse": 0.001}, True)
    after = read_artifact(Directory(run_folder))
    assert after.description.score == score
    assert all((after.tables[name] == table).all() for name, table in before.tables.items())


def test_a_best_model_that_is_damaged_is_passed_over(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder, after=60)
    (run_folder / MODEL).write_bytes(b"no model")
    with pytest.warns(RuntimeWarning, match="the best model so far is passed over"):
        summary = mlless.resume(run_folder, verbose=False).summary
    assert mlless.evaluate(run_folder, ratings.location)["rmse"] == pytest.approx(
        summary.heldout["rmse"], rel=1e-5
    )


# Money and time


def test_what_was_paid_stays_paid(ratings: Dataset, run_folder: Path) -> None:
    spec = spec_of(ratings, tariff="published-ibm")
    before = crash(spec, ratings, run_folder)[-1].cost
    assert before
    told = read_summary(Directory(run_folder)).bill
    assert told is not None
    assert told.total >= before
    run = mlless.resume(run_folder, verbose=False)
    assert run.bill is not None
    (item,) = [one for one in run.bill.items if "earlier" in one.what]
    assert item.amount == pytest.approx(told.total)
    costs = [record.cost or 0.0 for record in run.history()]
    assert costs == sorted(costs)
    assert run.bill.total > before


@pytest.mark.parametrize(("option", "value"), [("max_time", 1e-3), ("max_cost", 1e-9)])
def test_what_is_used_up_is_told(ratings: Dataset, run_folder: Path, option: str, value: float) -> None:
    crash(spec_of(ratings, tariff="published-ibm"), ratings, run_folder)
    with pytest.raises(UsageError, match=rf"used up what `{option}` allows.* Raise `{option}`"):
        mlless.resume(run_folder, **{option: value})
    assert mlless.resume(run_folder, verbose=False).summary.stop_reason == "epochs"


# Refusals


def test_where_no_run_is(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DatasetError, match="no run here"):
            mlless.resume(folder)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_finished(ratings: Dataset, run_folder: Path) -> None:
    run_job(spec_of(ratings, epochs=1), ratings, run_folder)
    with pytest.raises(UsageError, match="this run has come to its end: found stop_reason epochs"):
        mlless.resume(run_folder)


def test_a_run_without_a_checkpoint_whose_model_would_be_lost(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder, after=60)
    (run_folder / CHECKPOINT).unlink()
    with pytest.raises(UsageError, match=r"no checkpoint .* its best model so far, .* --out ANOTHER"):
        mlless.resume(run_folder)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_that_was_lost_before_its_first_checkpoint_begins_again(
    ratings: Dataset, run_folder: Path, tmp_path: Path, workers: int
) -> None:
    spec = spec_of(ratings, workers=workers)
    whole = run_job(spec, ratings, tmp_path / "whole")
    before = crash(spec, ratings, run_folder, after=5)
    (run_folder / CHECKPOINT).unlink()
    (run_folder / MODEL).unlink(missing_ok=True)
    run = mlless.resume(run_folder, verbose=False)
    assert run.summary.resumed == (0,)
    assert run.history()[0].time > before[-1].time
    assert_whole(Directory(run_folder), ratings, EPOCHS)
    assert (run_folder / MODEL).read_bytes() == (whole.folder / MODEL).read_bytes()


def test_another_data_set(ratings: Dataset, clicks: Dataset, run_folder: Path, tmp_path: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    with pytest.raises(UsageError, match="not the data set of this run: expected fingerprint"):
        mlless.resume(run_folder, dataset=clicks.location)
    copy = tmp_path / "moved"
    shutil.copytree(ratings.location, copy)
    gone = mlless.open_dataset(copy)
    other = tmp_path / "other"
    crash(spec_of(gone), gone, other)
    copy.rename(tmp_path / "away")
    with pytest.raises(DatasetError, match=r"moved: .*; if the data set was moved, say where .*: `dataset`"):
        mlless.resume(other)
    (tmp_path / "away").rename(copy)
    assert mlless.resume(run_folder, dataset=copy, verbose=False).summary.job.dataset == str(copy)


def test_more_workers_than_groups(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    with pytest.raises(UsageError, match="more workers than groups of rows"):
        mlless.resume(run_folder, workers=10**4)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "stand"])
def test_a_damaged_checkpoint(ratings: Dataset, run_folder: Path, damage: str) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    path = run_folder / CHECKPOINT
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-100:]
    elif damage == "bit":
        data[-1] ^= 1
    elif damage == "empty":
        data.clear()
    else:
        data = bytearray(bytes(data).replace(b'"stand":"', b'"stand":"!'))
        data[:8] = (int.from_bytes(data[:8], "little") + 1).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"the checkpoint is damaged.* Start it again"):
        mlless.resume(run_folder)


def test_a_checkpoint_of_another_release(
    ratings: Dataset, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    monkeypatch.setattr("mlless.report.left.FORMAT", 2)
    with pytest.raises(
        UsageError, match="a checkpoint of another release: expected format 2, found format 1"
    ):
        mlless.resume(run_folder)


def test_a_run_that_can_be_resumed_is_not_replaced_unasked(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    (run_folder / MODEL).unlink(missing_ok=True)
    with pytest.raises(UsageError, match=r"can be resumed.*mlless resume .* `overwrite`"):
        run_job(spec_of(ratings), ratings, run_folder)
    run = run_job(spec_of(ratings, epochs=1), ratings, run_folder, overwrite=True)
    assert run.summary.resumed == ()


def test_a_run_that_was_to_be_replaced_stays_what_it_was(ratings: Dataset, run_folder: Path) -> None:
    run_job(spec_of(ratings, epochs=1), ratings, run_folder)

    def listen(record: StepRecord) -> None:
        if record.step == 10:
            raise Crash

    with pytest.raises(Crash):
        run_job(spec_of(ratings), ratings, run_folder, overwrite=True, listen=listen)
    with pytest.raises(UsageError, match="come to its end"):
        mlless.resume(run_folder)


# In an object store


def test_a_run_in_a_bucket_is_resumed_once_its_lease_is_abandoned(
    ratings: Dataset, bucket: str, s3: S3Server, channels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folder = f"s3://{bucket}/run", s3.folder / bucket / "run"
    monkeypatch.setenv(lease.VARIABLE, "4")
    driver = DriverProcess(ratings, out, channels, checkpoint_every=0.0)
    try:
        with pytest.raises(UsageError, match=r"another job writes to this run: found process \d+ of"):
            run_job(spec_of(ratings), ratings, out, overwrite=True)
        eventually((folder / CHECKPOINT).exists, "a checkpoint")
        driver.wait_for_step(60)
        os.kill(driver.process.pid, signal.SIGKILL)
        driver.assert_nothing_left()
    finally:
        driver.end()
    assert (folder / lease.LEASE).exists()
    with resuming(out) as left:
        epochs = epochs_of(left) + 2
    run = mlless.resume(out, epochs=epochs, verbose=False)
    assert run.summary.resumed
    assert_whole(place_of(out), ratings, epochs)
    assert {path.name for path in folder.iterdir()} == {MODEL, HISTORY, SUMMARY}


def test_who_was_taken_for_dead_writes_nothing_more(ratings: Dataset, bucket: str, s3: S3Server) -> None:
    out, folder = f"s3://{bucket}/run", s3.folder / bucket / "run"
    taken: dict[str, bytes] = {}

    def listen(record: StepRecord) -> None:
        if record.step == 20:
            content = (folder / lease.LEASE).read_bytes()
            open_objects(place_of(out)).put(lease.LEASE, content.replace(b'"holder":"', b'"holder":"another'))
        if record.step >= 20 and not taken:
            eventually(lambda: "lease" in lost, "it notices")
            taken.update({path.name: path.read_bytes() for path in folder.iterdir()})

    lost: set[str] = set()
    renew = lease._Lease.renew

    def noticed(self: lease._Lease) -> None:
        renew(self)
        if self.hold.lost:
            lost.add("lease")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease._Lease, "renew", noticed)
        patch.setattr(
            lease.leased, "__kwdefaults__", {"holder": "", "wait": lambda seconds: None, "renew": 0.05}
        )
        with pytest.raises(JobError, match="another job has taken over this run"):
            run_job(spec_of(ratings, checkpoint_every=None), ratings, out, listen=listen)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == taken


# In the process that asks


def test_training_in_the_process_is_resumed_to_the_same_bits(
    ratings: Dataset, clicks: Dataset, tmp_path: Path
) -> None:
    for number, dataset in enumerate((ratings, clicks)):
        whole, run = tmp_path / f"whole{number}", tmp_path / f"run{number}"
        spec = spec_of(dataset, workers=1, l2=0.01)
        run_job(spec, dataset, whole)
        before = crash(spec, dataset, run, after=100)
        done = mlless.resume(run, verbose=False)
        (step,) = done.summary.resumed
        assert 0 < step <= before[-1].step + 1
        assert (run / MODEL).read_bytes() == (whole / MODEL).read_bytes()
        records = assert_whole(Directory(run), dataset, EPOCHS)
        assert records[step].losses == ("the job is resumed, with 1 worker",)
        assert done.summary.seconds > before[-1].time
        assert {path.name for path in run.iterdir()} == {MODEL, HISTORY, SUMMARY}


def test_a_process_that_trains_is_killed_and_resumed(ratings: Dataset, run_folder: Path) -> None:
    code = (
        "import mlless\n"
        f"mlless.train({ratings.location!r}, out={str(run_folder)!r}, epochs=10**6, checkpoint_every=0.0,\n"
        "    verbose=False, listen=lambda record: print(record.step, flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > 200 and (run_folder / CHECKPOINT).exists():
                break
    finally:
        process.kill()
        process.communicate()
    with resuming(run_folder) as left:
        epochs = epochs_of(left) + 2
    run = mlless.resume(run_folder, epochs=epochs, verbose=False)
    assert run.summary.stop_reason == "epochs"
    assert_whole(Directory(run_folder), ratings, epochs)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_it_goes_on_in_functions_or_without(
    ratings: Dataset, run_folder: Path, before: int, after: int
) -> None:
    crash(spec_of(ratings, workers=before), ratings, run_folder)
    run = mlless.resume(run_folder, workers=after, verbose=False)
    assert run.summary.members == (before, after)
    assert_whole(Directory(run_folder), ratings, EPOCHS)


# The command, and what a kill leaves in the middle of a write


def resumed(run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlless", "resume", str(run), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_resumes_and_tells(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    refused = resumed(run_folder, "--max-time", "0.001")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {run_folder}: the run has used up what --max-time allows")
    done = resumed(run_folder, "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the job is resumed, with 2 workers" in done.stdout
    assert f"ended     {EPOCHS} epochs done" in done.stdout
    again = resumed(run_folder)
    assert again.returncode == 2
    assert "this run has come to its end" in again.stderr


def test_of_the_settings_only_those_of_the_deployment_count(
    ratings: Dataset, run_folder: Path, tmp_path: Path
) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    settings = tmp_path / "settings.toml"
    settings.write_text("[train]\nworkers = 1\nepochs = 1\n")
    done = resumed(run_folder, "--config", str(settings), "--json")
    summary = msgspec.json.decode(done.stdout, type=Summary)
    assert (summary.job.workers, summary.job.stop.epochs) == (3, EPOCHS)


def test_dear_checkpoints_are_told(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings), ratings, run_folder)
    done = resumed(run_folder)
    share = read_summary(Directory(run_folder)).checkpoints.share
    assert ("as --checkpoint-every 0 asks for them" in done.stdout) == (share > SHARE)


def test_a_checkpoint_is_never_half_written(ratings: Dataset, run_folder: Path) -> None:
    crash(spec_of(ratings, workers=1), ratings, run_folder)
    before = (run_folder / CHECKPOINT).read_bytes()
    code = (
        "import os, signal, mlless\n"
        "from mlless.channels import folder\n"
        "replace = os.replace\n"
        "def killed(source, target):\n"
        f"    if str(target).endswith({CHECKPOINT!r}):\n"
        "        os.truncate(source, os.path.getsize(source) // 2)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    replace(source, target)\n"
        "os.replace = killed\n"
        f"mlless.resume({str(run_folder)!r}, verbose=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (run_folder / CHECKPOINT).read_bytes() == before
    assert any(path.name.startswith(PART) for path in run_folder.iterdir())
    mlless.resume(run_folder, verbose=False)
    assert {path.name for path in run_folder.iterdir()} == {MODEL, HISTORY, SUMMARY}


# A supervisor that hands over


def in_lives(spec: JobSpec, dataset: Dataset, run: Path, lives: int) -> Summary:
    """Run a job whose supervisors but for the last hand over as soon as they can; return the summary."""
    detached = underway.Detached(0, "")
    done = run_job(spec, dataset, run, within=0.0, detached=detached).summary
    for number in range(1, lives):
        assert done.stop_reason == RUNNING
        assert {CHECKPOINT, SUMMARY, HISTORY, underway.UNDERWAY} <= {path.name for path in run.iterdir()}
        assert done.checkpoints.step == done.steps  # no step is taken twice
        within = 0.0 if number < lives - 1 else None
        with resuming(run) as left:
            assert left.step == done.steps
            detached = msgspec.structs.replace(detached, number=number)
            done = run_job(spec, dataset, run, left=left, detached=detached, within=within).summary
    return done


def test_supervisors_hand_over_to_the_same_bits(ratings: Dataset, run_folder: Path, tmp_path: Path) -> None:
    """Where updates are whole, and workers have no state of their own."""
    spec = spec_of(ratings, workers=2, sync="bsp", epochs=3, optimizer="nesterov", learning_rate=0.1)
    assert isinstance(spec.optimizer, Nesterov)
    assert isinstance(spec.model, Factorization)
    spec = msgspec.structs.replace(
        spec,
        optimizer=msgspec.structs.replace(spec.optimizer, momentum=0.0),
        model=msgspec.structs.replace(spec.model, l2=0.0),
    )
    whole = run_job(spec, ratings, tmp_path / "whole")
    done = in_lives(spec, ratings, run_folder, 4)
    assert len(done.resumed) == 3
    steps = [record.step for record in read_history(Directory(run_folder))]
    assert steps == [record.step for record in whole.history()]
    assert (run_folder / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()
    assert {path.name for path in run_folder.iterdir()} == {MODEL, HISTORY, SUMMARY}


def test_supervisors_hand_over_to_a_model_as_good(ratings: Dataset, run_folder: Path, tmp_path: Path) -> None:
    spec = spec_of(ratings, workers=2)
    whole = run_job(spec, ratings, tmp_path / "whole").summary
    done = in_lives(spec, ratings, run_folder, 3)
    assert done.heldout["rmse"] == pytest.approx(whole.heldout["rmse"], abs=0.005)


def test_a_request_to_stop_between_two_supervisors_is_heeded(ratings: Dataset, run_folder: Path) -> None:
    spec = spec_of(ratings, workers=2, epochs=10**6)
    job = underway.Detached(0, "")
    assert run_job(spec, ratings, run_folder, within=0.0, detached=job).summary.stop_reason == RUNNING
    (run_folder / underway.STOP).write_bytes(b"")
    with resuming(run_folder) as left:
        job = msgspec.structs.replace(job, number=1)
        assert (
            run_job(spec, ratings, run_folder, left=left, detached=job).summary.stop_reason == "interrupted"
        )


def test_a_job_that_is_suspended_takes_the_place_of_a_run_that_it_replaces(
    ratings: Dataset, run_folder: Path
) -> None:
    run_job(spec_of(ratings, workers=1, epochs=1), ratings, run_folder)
    spec = spec_of(ratings, workers=2, epochs=3)
    job = underway.Detached(0, "")
    first = run_job(spec, ratings, run_folder, overwrite=True, within=0.0, detached=job)
    assert first.summary.stop_reason == RUNNING
    with resuming(run_folder) as left:
        assert left.step == first.summary.steps
        assert left.job.stop.epochs == 3
        job = msgspec.structs.replace(job, number=1)
        run = run_job(spec, ratings, run_folder, left=left, detached=job)
    assert run.summary.stop_reason == "epochs"
