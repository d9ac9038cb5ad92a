"""The contract of a runtime."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from mlless.messages import FunctionId

# One thread a worker: P workers share the cores, and a NumPy that starts more threads only gets in the way.
ONE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"], "1"
)


def debugging() -> bool:
    """Return whether ``MLLESS_DEBUG`` is set, and not to 0, false, no or off."""
    return os.environ.get("MLLESS_DEBUG", "").strip().lower() not in ("", "0", "false", "no", "off")


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A function is over: its exit code, or the negative number of the signal that killed it."""

    worker: int
    generation: int
    code: int
    cpu_seconds: float
    cause: str = ""  # what the runtime knows of it: a line, or the function's own traceback
    seconds: float | None = None  # how long it ran, where the runtime knows
    peak: int | None = None  # bytes of memory that it had at most, where the runtime knows

    def describe(self) -> str:
        """Return how it ended, in words."""
        if self.cause:
            return self.cause
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return f"signal {signal.Signals(-self.code).name}"
        except ValueError:
            return f"signal {-self.code}"


class Runtime(Protocol):
    """Starts functions and says when they are over.

    If the process that holds the runtime dies, its functions end within seconds, and so does
    everything else that the runtime started.
    """

    @property
    def time_limit(self) -> float | None:
        """Seconds after which the runtime ends a function; None if it never does."""
        ...

    @property
    def memory(self) -> int | None:
        """MB that a function has and is billed for; None where it has what the machine has."""
        ...

    def start(self, functions: Mapping[FunctionId, bytes]) -> None:
        """Start all functions, each with its payload, to run at the same time.

        May be called again while others run, with a worker's next generation too, whatever has become of
        the one before. UsageError if the runtime cannot run so many at once.
        """
        ...

    def end(self, functions: Collection[FunctionId]) -> None:
        """End these functions, best effort, without waiting; ``ended`` tells of them as of any other.

        Those that are over, or cannot be ended one by one, are passed over.
        """
        ...

    def ended(self) -> list[Ended]:
        """Return the functions that ended since the last call, without waiting."""
        ...

    def stop(self, grace: float) -> list[Ended]:
        """Wait up to ``grace`` seconds for the functions to end, kill the rest, and let go.

        Returns those that ended since the last call. May be called more than once.
        """
        ...
