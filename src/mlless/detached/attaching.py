"""Follows a job from its history as it grows, until its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from mlless.channels.opening import open_objects
from mlless.closing import Listener
from mlless.errors import DeadlineExceeded, JobError, MLLessError, WorkerLost
from mlless.job import JobSpec
from mlless.locations import Location, Place, place_of
from mlless.records import FAILED, RUNNING, StepRecord, Summary
from mlless.report.account import left_by
from mlless.report.history import SUMMARY, Following, is_finished, read_summary, readable
from mlless.report.progress import progress
from mlless.report.underway import Underway, is_alive, read_underway
from mlless.run import Run

HINT = "Ctrl-C leaves the job alone"
_NEAR, _FAR = 0.25, 5.0  # seconds between two looks: into a folder, into an object store
_START = 120.0  # seconds for a job that holds its folder to say what it is

Show = Callable[[JobSpec, float], AbstractContextManager[Listener]]


def _silent(record: StepRecord) -> None:
    """Hear of a step and say nothing."""


def quietly(spec: JobSpec, elapsed: float) -> AbstractContextManager[Listener]:
    """Show nothing."""
    return nullcontext(_silent)


def attach(run: Location, *, verbose: bool = True, listen: Listener = _silent) -> Run:
    """Follow a job until it ends, detached or not, and return its run.

    A Ctrl-C raises KeyboardInterrupt and leaves the job alone.

    Parameters
    ----------
    run : str or path
        The folder or URL of the run. If it has ended already, its whole history is shown at once.
    verbose : bool, default True
        Whether to show how it goes, as `mlless.train` does.
    listen : callable
        Is called with the `StepRecord` of every step, also of the steps so far.

    Returns
    -------
    Run
        The run, with its summary.

    Raises
    ------
    DatasetError
        There is no run.
    WorkerLost
        The job was killed: no process is left that works on it.
    MLLessError
        The job has failed; the exit code says how.
    """

    def show(spec: JobSpec, elapsed: float) -> AbstractContextManager[Listener]:
        """Show the course of a job."""
        return progress(spec, elapsed=elapsed, hint=HINT)

    return follow(place_of(run), show if verbose else quietly, listen)


def follow(place: Place, show: Show, listen: Listener = _silent) -> Run:
    """Follow a job as ``attach`` does. ``show`` is given its spec and for how many seconds it has run."""
    with readable(place):
        before = _summary(place)  # first: a job that ends meanwhile is not to be taken for the one before it
        job = _job(place)
        over = _summary(place) if job is None else None
    if job is not None:
        spec, elapsed = job.job, max(time.time() - job.began, 0.0)
    elif over is not None:
        spec, elapsed = over.job, over.wall_seconds
    else:
        raise _lost(place)
    pause = _FAR if open_objects(place).distant else _NEAR
    history = Following(place, under_way=job is not None)
    with show(spec, elapsed) as display:
        alive = True
        while alive:
            alive = is_alive(place)  # at first: what is written before the end is read after it
            for record in history.read():
                display(record)
                listen(record)
            if alive:
                time.sleep(pause)
    return Run(place, _ended(place, job, before))


def _job(place: Place) -> Underway | None:
    """Return what the job says of itself, None if it is over; waits for one that is about to say it."""
    deadline = time.monotonic() + _START
    while (job := read_underway(place)) is None and is_alive(place):
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"the job has not begun within {_START:g} s", where=str(place))
        time.sleep(_NEAR)
    if job is None:
        is_finished(place)  # or the error that there is no run
    return job


def _summary(place: Place) -> Summary | None:
    return read_summary(place) if SUMMARY in open_objects(place).names() else None


def _ended(place: Place, job: Underway | None, before: Summary | None) -> Summary:
    """Return the summary of a job that is over, or raise the error that it has ended with."""
    summary = _summary(place)
    if summary is None or summary.stop_reason == RUNNING or read_underway(place) is not None:
        raise _lost(place)
    if job is not None and summary == before:
        log = f"see {job.detached.log}" if job.detached else None
        raise JobError(
            "the job failed before it had a model to replace the one that is there",
            where=str(place),
            cure=log,
        )
    if summary.stop_reason == FAILED:
        error = MLLessError(summary.error or "the job has failed")
        error.exit_code = summary.exit_code
        for note in left_by(summary, place):
            error.add_note(note)
        raise error
    return summary


def _lost(place: Place) -> WorkerLost:
    return WorkerLost("the job was killed", where=str(place), cure=f"see mlless status {place}")
