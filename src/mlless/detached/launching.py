"""Starts a job that needs no terminal: a process tree of its own, which nothing of the caller's holds."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Unpack

import msgspec

from mlless.data.dataset import Dataset, open_dataset
from mlless.data.findings import check_two_classes
from mlless.deployment import Deployment
from mlless.detached.order import Answer, Order, for_function
from mlless.detached.status import Status, status
from mlless.driver import plan_job
from mlless.errors import DeadlineExceeded, JobError, MLLessError, UsageError
from mlless.job import Deadlines, JobSpec
from mlless.locations import Directory, Location, Place, place_of
from mlless.options import declared, made, takes_options
from mlless.report.lease import new_holder
from mlless.report.underway import LOG, is_alive
from mlless.report.vacancy import check_run_folder, make_run_folder
from mlless.runtimes.hosted import module_command
from mlless.runtimes.lithops import LithopsRuntime
from mlless.train_options import TrainOptions
from mlless.wishes import Wishes

_START = 60.0  # seconds beyond those that workers have: for Python to start


@takes_options(*declared(Wishes), *declared(Deployment))
def detach(
    dataset: Location | Dataset, *, out: Location, overwrite: bool = False, **options: Unpack[TrainOptions]
) -> Status:
    """Train as `mlless.train` does, in processes that outlive this one; return once the job is under way.

    `mlless.status`, `mlless.attach` and `mlless.stop` take its run, from any machine that reaches ``out``.
    What the job prints is in the file ``job.log`` there.

    Parameters
    ----------
    dataset : str, path or Dataset
        The folder of the data set, or the URL of its prefix in an object store.
    out : str or path
        The folder or URL for the run.
    overwrite : bool, default False
        Whether to replace a run that is there.
    **options
        See below. Settings in files and variables do not count: they are for the command line.

    Returns
    -------
    Status
        The state of the run.

    Raises
    ------
    UsageError
        The request does not fit the data set, or its options do not go together.
    MLLessError
        The job failed before it was under way; the exit code says how.
    """
    wishes, deployment = made(Wishes, options), made(Deployment, options)
    data = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    spec, place = plan_job(wishes, data, deployment), place_of(out)
    check_two_classes(data.manifest, data.location)
    check_run_folder(place, overwrite)
    launch(place, deployment, spec, overwrite=overwrite)
    return status(out)


def launch(
    out: Place,
    deployment: Deployment,
    job: JobSpec | None = None,
    *,
    overwrite: bool = False,
    anew: Mapping[str, Any] | None = None,
    dataset: str | None = None,
) -> None:
    """Run a job detached, as ``driver.run_job`` does, or without a job resume what is there.

    Returns once the job is under way, or raises why it is not. What is interrupted before takes the job with
    it. ``anew`` and ``dataset`` are those of ``driver.plan_resume``.
    """
    if is_alive(out):
        raise UsageError(
            "another job writes to this run's folder",
            where=str(out),
            cure="choose another --out, or end that job with mlless stop",
        )
    make_run_folder(out)  # for its log
    log = log_of(out)
    order = Order(
        out=out.address,
        log=str(out) + f"/{LOG}" if for_function(deployment, out) else log,
        deployment=deployment,
        job=job,
        overwrite=overwrite,
        anew=dict(anew or {}),
        dataset=dataset,
        holder=new_holder(),
    )
    begin(order, patience(deployment, job.deadlines if job else Deadlines()), log)


def begin(order: Order, within: float, log: str) -> None:
    """Start the guardian of an order, which prints into ``log``; return once it reports that all is well.

    DeadlineExceeded if that takes more than ``within`` seconds, or the error that the guardian reports.
    """
    heard, told = os.pipe()
    try:
        with open(log, "ab") as file:
            process = subprocess.Popen(
                module_command("mlless.detached.guardian", str(told), log),
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                pass_fds=[told],
                start_new_session=True,
            )
        os.close(told)
        try:
            process.communicate(msgspec.json.encode(order), _START)  # it forks, and its parent exits
            _wait(heard, within, log)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
    finally:
        os.close(heard)


def patience(deployment: Deployment, deadlines: Deadlines) -> float:
    """Return for how many seconds a job may not be under way: a cloud's runtime may be deployed first."""
    deploying = LithopsRuntime.START_DEADLINE if deployment.runtime == "lithops" else 0.0
    return deploying + deadlines.start + _START


def log_of(out: Place) -> str:
    """Return the path of the job's log: in the run's folder, or on this machine as long as the job runs."""
    if isinstance(out, Directory):
        return str(out.path.resolve() / LOG)
    handle, path = tempfile.mkstemp(prefix="mlless-", suffix=".log")
    os.close(handle)
    return path


def _wait(heard: int, within: float, log: str) -> None:
    """Return once the job is under way; the error that it has ended with, once it is gone, if it has."""
    deadline, said = time.monotonic() + within, b""
    with selectors.DefaultSelector() as selector:
        selector.register(heard, selectors.EVENT_READ)
        while selector.select(max(deadline - time.monotonic(), 0.0)):
            data = os.read(heard, 1 << 16)
            said += data
            if data and not said.endswith(b"\n"):
                continue
            if not said:
                raise JobError("the job ended before it was under way", where=log, cure="its log may say why")
            answer = msgspec.json.decode(said, type=Answer)
            if not answer.code:
                return
            if not data:
                error = MLLessError(answer.text)
                error.exit_code = answer.code
                raise error
    raise DeadlineExceeded(f"the job is not under way after {within:g} s, and was ended", where=log)
