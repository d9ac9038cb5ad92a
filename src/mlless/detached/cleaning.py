"""Removes what a job that was killed has left behind, wherever that is."""

from __future__ import annotations

from collections.abc import Iterator

from mlless.channels.opening import open_objects
from mlless.deployment import EMBEDDED, Deployment
from mlless.locations import Location, Place, place_of
from mlless.report.history import PART, is_finished, readable
from mlless.report.leftover import clear_left
from mlless.report.lock import GUARD, LOCK, locked
from mlless.report.underway import STOP, UNDERWAY, read_underway


def clean(run: Location, *, store: str | None = None, bus: str | None = None) -> list[str]:
    """Remove what a lost job has left behind, and return what was removed.

    That is processes, keys, queues, its folder of updates, and half-written files. The model, its history,
    its summary and its checkpoint stay.

    Parameters
    ----------
    run : str or path
        The folder or URL of the run.
    store, bus : str, optional
        The addresses of the job's servers, as `mlless.train` was given them. They are needed if they hold
        passwords, because passwords are not recorded. Addresses of other servers are ignored.

    Returns
    -------
    list of str
        What was removed, in words. It is empty for a run that has come to its end.

    Raises
    ------
    UsageError
        The job is alive, or its files and processes are on another machine.
    DatasetError
        There is no run.
    ChannelError
        A server cannot be reached. Other things may have been removed by then; try again.
    """
    place = place_of(run)
    given, cure = Deployment(store=store or EMBEDDED, bus=bus), f"end it first: mlless stop {place}"
    found = open_objects(place).names()
    if UNDERWAY not in found:
        is_finished(place)  # or the error that there is no run
    with locked(place, GUARD, cure), locked(place, LOCK, cure), readable(place):
        job = read_underway(place)
        return [*(clear_left(job, given) if job else ()), *_files(place, found)]


def _files(place: Place, found: set[str]) -> Iterator[str]:
    """Remove those of the files that say that a job is under way; the one that says what it has left last."""
    objects = open_objects(place)
    half = sorted(name for name in found if name.startswith(PART))
    objects.delete([*half, STOP])
    objects.delete([UNDERWAY])
    if half:
        yield f"half-written files: {', '.join(half)}"
    if passing := sorted(found & {LOCK, GUARD, STOP, UNDERWAY}):
        yield f"what said that a job is under way: {', '.join(passing)}"
