"""Removes what a job that was killed has left behind, wherever that is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec

from mlless.channels.clearing import clear
from mlless.channels.opening import open_objects
from mlless.deployment import Addresses, Deployment, bare
from mlless.errors import ChannelError, UsageError
from mlless.locations import Location, Place, place_of
from mlless.report.history import PART, is_finished
from mlless.report.lock import GUARD, LOCK, locked
from mlless.report.underway import STOP, UNDERWAY, Underway, is_alive, read_underway
from mlless.runtimes.strays import end_strays


def clean(run: Location, *, store: str | None = None, bus: str | None = None) -> list[str]:
    """Remove what a lost job has left: processes, keys, queues, its folder of updates, half-written files.

    The model, its history, its summary and its checkpoint stay.

    Parameters
    ----------
    run : str or path
        The run's folder or URL.
    store, bus : str, optional
        The addresses of the job's servers, as ``mlless.train`` was given them. They are needed where they
        hold passwords, for these are not recorded. Addresses of other servers are passed over.

    Returns
    -------
    list of str
        What was removed, in words; nothing of a run that has come to its end.

    Raises
    ------
    UsageError
        The job is alive, or was at work on another machine whose files and processes are out of reach.
    DatasetError
        There is no run.
    ChannelError
        A server cannot be reached. What else is to be removed may be removed by then; try again.
    """
    place = place_of(run)
    if is_alive(place):
        raise UsageError("the job is alive", where=str(place), cure=f"end it first: mlless stop {place}")
    job = read_underway(place)
    if job is None:
        is_finished(place)  # or the error that there is no run
    found = open_objects(place).names()
    with locked(place):
        return [*(_left(job, store, bus) if job else ()), *_files(place, found)]


def _left(job: Underway, store: str | None, bus: str | None) -> Iterator[str]:
    if job.addresses is None:
        return
    here = socket.gethostname()
    if job.deployment.embedded and job.host != here:
        where = f"to be cleaned on {job.host}"
        raise UsageError("what this job has left is on another machine", expected=where, found=here)
    if job.host != here:
        yield f"nothing of the processes on {job.host}: they end by themselves"
    elif found := end_strays(job.addresses.job):
        yield f"processes of the job: {found}"
    try:
        yield from clear(_with_credentials(job.addresses, store, bus), job.job.workers)
    except ChannelError as error:
        if job.deployment != Deployment():
            error.add_note("passwords are not recorded: give --store and --bus as mlless train got them")
        raise


def _with_credentials(addresses: Addresses, store: str | None, bus: str | None) -> Addresses:
    """Return the addresses, those that are given in the place of the same ones without passwords."""
    given = Deployment(store=store or "embedded", bus=bus)
    known = {bare(address): address for address in (*given.servers, given.meeting)}
    return msgspec.structs.replace(
        addresses,
        store=tuple(known.get(address, address) for address in addresses.store),
        bus=known.get(addresses.bus, addresses.bus),
    )


def _files(place: Place, found: set[str]) -> Iterator[str]:
    """Remove those of the files that say that a job is under way; the one that says what it has left last."""
    objects = open_objects(place)
    half = sorted(name for name in found if name.startswith(PART))
    objects.delete([*half, GUARD, STOP])
    objects.delete([UNDERWAY])
    if half:
        yield f"half-written files: {', '.join(half)}"
    if passing := sorted(found & {LOCK, GUARD, STOP, UNDERWAY}):
        yield f"what said that a job is under way: {', '.join(passing)}"
