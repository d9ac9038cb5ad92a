"""Processes of a job on this machine, which are known by a variable of their environment."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlless.errors import DeadlineExceeded

TAG = "MLLESS_JOB"
_PROC = Path("/proc")
_DEADLINE, _PAUSE = 10.0, 0.02  # seconds for killed processes to be gone, and between two looks


def end_strays(job: str) -> int:
    """Kill all processes of the job; return how many there were, once they are gone."""
    found = tagged(job)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _DEADLINE
    while tagged(job):
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"processes of {job} do not end", found=", ".join(map(str, tagged(job))))
        time.sleep(_PAUSE)
    return len(found)


def tagged(job: str) -> list[int]:
    """Return the ids of the processes of a job."""
    tag = f"{TAG}={job}".encode()
    return [pid for pid, environment in _environments() if tag in environment]


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    """Yield process ids, and the variables of each process that may be looked at."""
    if (_PROC / "self" / "environ").exists():
        for path in _PROC.glob("[0-9]*/environ"):
            with suppress(OSError):  # another user's, or gone by now
                yield int(path.parent.name), path.read_bytes().split(b"\0")
        return
    listing = subprocess.run(["/bin/ps", "-AEwwo", "pid=,command="], capture_output=True, check=True)
    for line in listing.stdout.splitlines():
        pid, *words = line.split()
        yield int(pid), words
