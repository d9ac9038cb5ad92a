"""Runtime: functions are processes of this machine, forked from a zygote that has NumPy loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from mlless.errors import JobError
from mlless.messages import FunctionId
from mlless.runtimes.hosted import HostedRuntime
from mlless.runtimes.limits import Limits
from mlless.runtimes.ports import ONE_THREAD
from mlless.runtimes.wire import End


class ProcessRuntime(HostedRuntime):
    """Forks functions on request.

    ``cleanup`` is a folder the zygote removes if this process dies; ``environment`` holds variables
    for the functions, over which those of this process take precedence. Functions end at their ``limits``;
    ``start`` raises UsageError if they have no room in them.
    """

    def __init__(
        self, entry: str, cleanup: Path | None, environment: Mapping[str, str], limits: Limits
    ) -> None:
        self._limits = limits
        super().__init__(
            "mlless.runtimes.zygote",
            [entry, str(cleanup or ""), msgspec.json.encode(limits).decode()],
            {**environment, **os.environ, **ONE_THREAD},
        )

    @property
    def time_limit(self) -> float | None:
        """Seconds after which a process is ended; None if it may take all the time it needs."""
        return self._limits.seconds

    @property
    def memory(self) -> int | None:
        """MB that a process may have; None if that is what this machine has."""
        return self._limits.memory

    def end(self, functions: Collection[FunctionId]) -> None:
        """Have the zygote kill those of them that run; one that is stopped would not heed a softer word."""
        if running := self._running.intersection(functions):
            with contextlib.suppress(JobError):  # the zygote is gone and so are they: ``ended`` says so
                self._say(End(sorted(running)))
