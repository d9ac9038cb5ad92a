"""``job.json``: what a job says of itself as long as it runs, and what it leaves behind if it is lost.

Whoever ends, also with an error, removes it with the rest of the job. Where it is and nobody is alive, the
job was killed. A file ``stop`` beside it asks the job for an orderly end.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from mlless.channels.opening import open_objects, open_remote
from mlless.deployment import Addresses, Deployment
from mlless.errors import ChannelError, MissingObject
from mlless.job import JobSpec
from mlless.locations import Directory, Place
from mlless.options import declared
from mlless.report.lease import is_held
from mlless.report.lock import GUARD, LOCK, is_locked

UNDERWAY, STOP = "job.json", "stop"
LOG = "job.log"  # what a job without a terminal prints
_NEAR, _FAR = 1.0, 5.0  # seconds between two looks for a request: in a folder, in an object store


class Detached(msgspec.Struct, frozen=True):
    """How a job runs without a terminal: its guardian, its log, a line for each supervisor that was lost.

    Of a supervisor that is a function there is no ``guardian`` to be found, and it is 0. So many supervisors
    were there before: ``number``. In an object store all hold the lease as the same ``holder``.
    """

    guardian: int
    log: str
    losses: tuple[str, ...] = ()
    holder: str = ""
    number: int = 0


class Underway(msgspec.Struct, frozen=True, kw_only=True):
    """A job under way: what it trains, since when, in which process of which machine, where functions meet.

    ``addresses`` and ``deployment`` are without credentials; the former is None of a job without functions.
    ``began`` is in seconds since 1970.
    """

    version: str
    began: float
    host: str
    pid: int
    job: JobSpec
    deployment: Deployment
    addresses: Addresses | None = None
    detached: Detached | None = None


def underway(
    version: str,
    job: JobSpec,
    deployment: Deployment,
    addresses: Addresses | None = None,
    detached: Detached | None = None,
) -> Underway:
    """Return what is to be said of a job that this process runs."""
    return Underway(
        version=version,
        began=time.time(),
        host=socket.gethostname(),
        pid=os.getpid(),
        job=job,
        deployment=deployment.bare(),
        addresses=addresses.bare() if addresses else None,
        detached=detached,
    )


def options_of(deployment: Deployment, detached: Detached | None) -> tuple[str, ...]:
    """Return the options, as one types them, with which a job is resumed where it ran; no passwords."""
    bare = deployment.bare()
    places = ((one.flag, getattr(bare, one.name), one.default) for one in declared(Deployment))
    given = [text for flag, value, default in places if value != default for text in (flag, str(value))]
    return (*(["--detach"] if detached else []), *given)


def write_underway(run: Place, value: Underway) -> None:
    """Write ``job.json``."""
    open_objects(run).put(UNDERWAY, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def read_underway(run: Place) -> Underway | None:
    """Return what a job that runs, or was lost, says of itself; None if there is none."""
    try:
        return msgspec.json.decode(open_objects(run).get(UNDERWAY), type=Underway)
    except MissingObject:
        return None


def is_alive(run: Place) -> bool:
    """Return whether a job works on this run, or is about to again.

    In an object store that takes until its lease is renewed, or until it has not been for long.
    """
    if isinstance(run, Directory):
        return any(is_locked(run.path / name) for name in (LOCK, GUARD))
    return is_held(open_remote(run))


@dataclass
class Looks:
    """How often somebody has asked an object store for a request to stop."""

    made: int = 0


@contextmanager
def heeding(run: Place, ask: Callable[[], bool]) -> Iterator[Looks]:
    """Look for a request to stop, beside the job, and ``ask`` for it until that returns True."""
    objects = open_objects(run)
    apart = _FAR if objects.distant else _NEAR
    over, looks = threading.Event(), Looks()

    def look() -> None:
        """Look for a request to stop until there is one, or the job is over."""
        while not over.wait(apart):
            looks.made += objects.distant
            with suppress(ChannelError):  # there is none, or the place is away for a while
                objects.get(STOP)
                if ask():
                    return

    thread = threading.Thread(target=look, name="heed", daemon=True)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
