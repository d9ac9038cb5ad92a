"""Removes what a job that was killed has left beside its run: processes, keys, queues, its folder."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec

from mlless.channels.clearing import clear
from mlless.deployment import Addresses, Deployment, bare
from mlless.errors import ChannelError, UsageError, warn
from mlless.report.underway import Underway
from mlless.runtimes.strays import end_strays


def clear_left(job: Underway, deployment: Deployment) -> Iterator[str]:
    """Remove what the job has left; yield what there was, in words.

    Passwords are taken from the addresses of ``deployment`` that are the job's. UsageError if all of it is
    on another machine, ChannelError if a server cannot be reached.
    """
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
        yield from clear(_with_credentials(job.addresses, deployment), job.job.workers)
    except ChannelError as error:
        if not job.deployment.is_plain:
            error.add_note("passwords are not recorded: give store and bus as mlless train got them")
        raise


def make_way(job: Underway | None, deployment: Deployment) -> None:
    """Remove what a job has left, if one has, before another one begins; warn where that is not possible."""
    try:
        for _ in clear_left(job, deployment) if job else ():
            pass
    except (UsageError, ChannelError) as error:
        warn(f"what a job that was killed has left is not removed: {error}", RuntimeWarning)


def _with_credentials(addresses: Addresses, given: Deployment) -> Addresses:
    """Return the addresses, those that are given in the place of the same ones without passwords."""
    known = {bare(address): address for address in (*given.servers, given.meeting)}
    return msgspec.structs.replace(
        addresses,
        store=tuple(known.get(address, address) for address in addresses.store),
        bus=known.get(addresses.bus, addresses.bus),
    )
