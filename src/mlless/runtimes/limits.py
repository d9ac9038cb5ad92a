"""Limits of functions that are processes of this machine, such as a cloud sets: of time, and of memory.

So all that befalls functions of a cloud can be tried on one machine. What counts as memory is what the kernel
counts for a process: its own pages and those that it shares with the zygote, of which a cloud's function has
its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import time

import msgspec

from mlless.errors import UsageError
from mlless.memory import MB, megabytes, peak_of, shortage

_OVER = signal.SIGUSR1  # ends who is out of memory: SIGKILL might come from anybody
_LOOK = 0.05  # seconds between two looks at the memory; the kernel keeps the peak, so none goes unnoticed


class Limits(msgspec.Struct, frozen=True):
    """What each function may take: ``seconds`` from its start on, and MB of ``memory``; None is no limit."""

    seconds: float | None = None
    memory: int | None = None

    @property
    def _bytes(self) -> int:
        assert self.memory is not None, "no limit of memory"
        return self.memory * MB

    def refusal(self) -> UsageError | None:
        """Return the error if a process that is forked from this one has too much memory from the start."""
        if self.memory is None:
            return None
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        bare = peak_of(os.wait4(pid, 0)[2])
        if bare <= self._bytes:
            return None
        return UsageError(
            "--memory is less than a worker takes with nothing read yet",
            expected=f"more than {megabytes(bare)} of memory for a worker",
            found=megabytes(self._bytes),
            cure="raise --memory",
        )

    def impose(self) -> None:
        """Have this process ended at its limits."""
        if self.seconds is not None:
            with contextlib.suppress(OverflowError):  # in centuries
                signal.setitimer(signal.ITIMER_REAL, self.seconds)  # no one handles its signal, which ends it
        if self.memory is not None:
            # The kernel does not heed this limit, but whoever asks what this process may have finds it.
            with contextlib.suppress(ValueError, OverflowError):  # it may have a lower one already
                resource.setrlimit(resource.RLIMIT_RSS, (self._bytes, self._bytes))
            threading.Thread(target=self._watch, daemon=True).start()

    def cause(self, code: int, peak: int) -> str:
        """Return which limit has ended a process with this exit ``code`` and ``peak``; "" if none has."""
        if code == -signal.SIGALRM and self.seconds is not None:
            return f"its time limit of {self.seconds:g} s was over; raise --time-limit"
        if code == -_OVER and self.memory is not None:
            # The kernel's last count may fall short of the one that was seen by some pages.
            return f"{shortage(self._bytes, max(peak, self._bytes + 1))}; raise --memory"
        return ""

    def _watch(self) -> None:
        while peak_of(resource.getrusage(resource.RUSAGE_SELF)) <= self._bytes:
            time.sleep(_LOOK)
        os.kill(os.getpid(), _OVER)
