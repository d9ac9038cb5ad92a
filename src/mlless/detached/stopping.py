"""Asks a job for an orderly end, wherever it runs, and waits for it."""

from __future__ import annotations

import time

from mlless.channels.opening import open_objects
from mlless.detached.status import Status, status
from mlless.errors import DeadlineExceeded, UsageError, WorkerLost
from mlless.locations import Location, place_of
from mlless.report.underway import STOP, is_alive

PATIENCE = 300.0  # seconds: about what a large model may take to be flushed, scored and stored
_LOOK = 0.2  # seconds between two looks


def stop(run: Location, *, within: float = PATIENCE) -> Status:
    """End a job in order, keep its model, and return the state of its run.

    The job finishes the step at hand. The run has then come to its end and cannot be resumed.

    Parameters
    ----------
    run : str or path
        The folder or URL of a run that is under way, detached or not.
    within : float, default 300
        Seconds to wait for its end.

    Returns
    -------
    Status
        The state of the run after its end.

    Raises
    ------
    UsageError
        No job works on this run.
    DeadlineExceeded
        The job has not ended in time. It still will, because the request stays.
    WorkerLost
        The job was killed before it came to its end.
    """
    place = place_of(run)
    before = status(run)
    if before.state not in ("starting", "running"):
        found = f"one that is {before.state}"
        raise UsageError("no job to stop here", where=str(place), expected="one that runs", found=found)
    objects, deadline = open_objects(place), time.monotonic() + within
    objects.put(STOP, b"")
    while is_alive(place):
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                f"the job has not ended within {within:g} s, and is still asked to",
                where=str(place),
                cure="wait, and look with mlless status; or end its process",
            )
        time.sleep(_LOOK)
    objects.delete([STOP])  # it may have ended before it was asked
    after = status(run)
    if after.state == "lost":
        raise WorkerLost("the job was killed before it had ended", where=str(place))
    return after
