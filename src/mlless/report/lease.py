"""A lease on a run in an object store, which has no locks: an object that its holder renews.

A process that finds a lease watches it. If it is renewed, its holder is alive. If it stays the same for as
long as it says, it may be taken over. Clocks are not compared. A process that is given the holder's name goes
on with the lease at once: its parent knows that the one before is dead.

If the store can put objects on condition, no two processes can take a lease. Otherwise a process that has
written it waits for a moment and reads it back. For two that come at once that fails only if one of them is
delayed for longer.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from mlless.channels.ports import ConditionalStore, Version
from mlless.errors import ChannelError, JobError, MissingObject, UsageError
from mlless.locations import Place

LEASE = "lease.json"
PASSING = 120.0  # seconds for a function to start that is to go on with it
STALE = 20.0  # seconds after the last renewal until one counts as abandoned
VARIABLE = "MLLESS_LEASE"  # names other seconds
RENEWALS = 4  # within that time
_LOOK, SETTLE = 1.0, 2.0  # seconds between two looks, and before it is read back

Wait = Callable[[float], object]


def new_holder() -> str:
    """Return a name for who is to hold a lease."""
    return secrets.token_hex(8)


class Hold:
    """A claim on a run's place; one on a folder, which is locked, is never lost. ``writes`` renew it."""

    def __init__(self) -> None:
        self.lost, self.writes = False, 0
        self.passed_on = False  # to the next one of the same name

    def check(self) -> None:
        """Raise JobError if another job has taken the run over."""
        if self.lost:
            raise JobError(
                "another job has taken over this run, for this one was not heard of for long",
                cure="nothing more is written by this one; see how the other goes: mlless status",
            )


class _Content(msgspec.Struct, frozen=True):
    """What the object says: who holds it, how often it was renewed, after which seconds it is abandoned."""

    holder: str
    host: str
    pid: int
    renewals: int = 0
    stale: float = STALE


@contextmanager
def leased(
    objects: ConditionalStore,
    run: Place,
    cure: str,
    *,
    holder: str = "",
    wait: Wait = time.sleep,
    renew: float | None = None,
) -> Iterator[Hold]:
    """Hold the lease on a run; UsageError with the cure if another job does so.

    One that is abandoned is taken over after the seconds that it names, one of the same ``holder`` at once.
    """
    stale = lasting()
    lease = _Lease(objects, run, cure, wait, holder, stale)
    apart = stale / RENEWALS if renew is None else renew
    lease.take()
    over = threading.Event()

    def renew_on() -> None:
        """Renew the lease until it is over or lost."""
        while not over.wait(apart) and not lease.hold.lost:
            with suppress(ChannelError):  # the store is away for a while
                lease.renew()

    thread = threading.Thread(target=renew_on, name="lease", daemon=True)
    thread.start()
    try:
        yield lease.hold
    finally:
        over.set()
        thread.join(stale / RENEWALS)
        with suppress(ChannelError):
            (lease.pass_on if lease.hold.passed_on else lease.release)()


def is_held(objects: ConditionalStore, *, wait: Wait = time.sleep) -> bool:
    """Return whether somebody renews the lease on a run, if there is one; watches it for so long."""
    found = _read(objects)
    for _ in range(_looks(found)):
        wait(_LOOK)
        seen = _read(objects)
        if seen is None:
            return False
        if found is not None and seen[0] != found[0]:
            return True
    return False


def lasting() -> float:
    """Return after how many seconds a lease of this process counts as abandoned."""
    text = os.environ.get(VARIABLE, "").strip()
    try:
        seconds = float(text or STALE)
    except ValueError:
        seconds = math.nan
    if not RENEWALS * _LOOK <= seconds < math.inf:
        raise UsageError(
            "not a time after which a lease counts as abandoned",
            where=VARIABLE,
            expected=f"seconds, at least {RENEWALS * _LOOK:g}",
            found=text,
        )
    return seconds


def _looks(found: tuple[_Content, Version] | None) -> int:
    """Return how often a lease that was found is to be looked at until it counts as abandoned."""
    return 0 if found is None else math.ceil(found[0].stale / _LOOK)


def _read(objects: ConditionalStore) -> tuple[_Content, Version] | None:
    """Return the lease that is there; ChannelError if it is none."""
    try:
        data, version = objects.get_version(LEASE)
        return msgspec.json.decode(data, type=_Content), version
    except MissingObject:
        return None
    except msgspec.DecodeError as error:
        raise ChannelError(
            "not a lease", where=LEASE, found=str(error), cure="if no job writes to this run, delete it"
        ) from error


class _Lease:
    """One process's side of it."""

    def __init__(
        self,
        objects: ConditionalStore,
        run: Place,
        cure: str,
        wait: Wait,
        holder: str = "",
        stale: float = STALE,
    ) -> None:
        self._objects, self._run, self._cure, self._wait = objects, run, cure, wait
        holder = holder or new_holder()
        self._mine = _Content(holder, socket.gethostname(), os.getpid(), stale=stale)
        self.hold = Hold()

    def take(self) -> None:
        """Take the lease; wait out an abandoned one."""
        while True:
            seen = _read(self._objects)
            if seen is not None and seen[0] == self._mine:
                return  # it was written, though the store's word on that was lost
            ours = seen is not None and seen[0].holder == self._mine.holder
            before = seen[1] if seen is not None and ours else self._wait_out(seen)
            if self._write(before) and self._is_settled():
                return

    def renew(self) -> None:
        """Renew the lease, or find that it is lost."""
        seen = _read(self._objects)
        if seen is not None and seen[0].holder != self._mine.holder:
            self.hold.lost = True
            return
        self._mine = msgspec.structs.replace(self._mine, renewals=self._mine.renewals + 1)
        self._write(seen[1] if seen is not None else None)  # if it is refused, the next look says why
        self.hold.writes += 1

    def release(self) -> None:
        """Let go of the lease, if it is still there."""
        seen = _read(self._objects)
        if seen is not None and seen[0].holder == self._mine.holder:
            self._objects.delete([LEASE])

    def pass_on(self) -> None:
        """Leave the lease to the next one of the same name, who may take long to come."""
        self._mine = msgspec.structs.replace(self._mine, stale=max(self._mine.stale, PASSING))
        self.renew()

    def _wait_out(self, found: tuple[_Content, Version] | None) -> Version | None:
        """Return the version of an abandoned lease, None if it is gone; UsageError if it is renewed."""
        for _ in range(_looks(found)):
            self._wait(_LOOK)
            seen = _read(self._objects)
            if seen is None:
                return None
            if found is not None and seen[0] != found[0]:
                raise UsageError(
                    "another job writes to this run",
                    where=str(self._run),
                    found=f"process {seen[0].pid} of {seen[0].host}",
                    cure=self._cure,
                )
        return None if found is None else found[1]

    def _is_settled(self) -> bool:
        """Return whether the lease that was written is this one's for sure."""
        if not self._write(None):  # it is there: a store that looks at conditions refuses
            return True
        self._wait(SETTLE)
        seen = _read(self._objects)
        return seen is not None and seen[0].holder == self._mine.holder

    def _write(self, before: Version | None) -> bool:
        return self._objects.put_version(LEASE, msgspec.json.encode(self._mine), before)
