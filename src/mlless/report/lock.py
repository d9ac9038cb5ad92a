"""Who works on a run's folder locks a file in it: others keep out, and can tell that a job is alive.

In an object store a lease stands in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlless.channels.opening import open_remote
from mlless.errors import ChannelError, UsageError
from mlless.locations import Directory, Place
from mlless.report.lease import Hold, leased

LOCK = ".lock"  # held by who writes the run's files
GUARD = ".guard"  # held by who sees to it that somebody does
ELSEWHERE = "choose another --out, or wait until that job has ended"
_TRIES, _PAUSE = 5, 0.05  # seconds: who looks whether a file is locked holds it for a moment


@contextmanager
def locked(run: Place, name: str = LOCK, cure: str = ELSEWHERE, *, holder: str = "") -> Iterator[Hold]:
    """Keep others out of the run's place; UsageError with the cure if another job holds it.

    In an object store this goes on with the lease of ``holder``, a process that is gone.
    """
    if not isinstance(run, Directory):
        if name != LOCK:  # who starts a job that holds the lease needs none
            yield Hold()
            return
        with leased(open_remote(run), run, cure, holder=holder) as hold:
            yield hold
        return
    path = run.path / name
    handle = _lock(path, cure)
    try:
        yield Hold()
    finally:
        path.unlink(missing_ok=True)  # while it is locked: whoever waits for it sees that it is gone
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Return whether a process that lives has locked the file; False where there is none."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system that cannot do so: who wrote there has warned of it
        return False
    finally:
        os.close(handle)
    return False


def _lock(path: Path, cure: str) -> int:
    """Return the handle of a file that this process alone has locked, and that is at ``path``."""
    tries = 0
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            what, remedy = f"cannot write: {error.strerror}", "check free space and permissions"
            raise ChannelError(what, where=str(path), cure=remedy) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            tries += 1
            if tries < _TRIES:
                time.sleep(_PAUSE)
                continue
            raise UsageError(
                "another job writes to this run's folder",
                where=str(path.parent),
                cure=cure,
            ) from None
        except OSError as error:  # a file system that cannot do so
            warnings.warn(f"{path} is not locked: {error.strerror}", RuntimeWarning, stacklevel=2)
            return handle
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)  # its owner has removed it meanwhile
