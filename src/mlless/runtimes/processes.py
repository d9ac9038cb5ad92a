"""Runtime: functions are processes of this machine, forked from a zygote that has NumPy loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from mlless.errors import JobError
from mlless.messages import FunctionId
from mlless.runtimes.hosted import HostedRuntime
from mlless.runtimes.ports import ONE_THREAD
from mlless.runtimes.wire import End


class ProcessRuntime(HostedRuntime):
    """Forks functions on request.

    ``cleanup`` is a folder the zygote removes if this process dies; ``environment`` holds variables
    for the functions, over which those of this process take precedence.
    """

    def __init__(self, entry: str, cleanup: Path | None, environment: Mapping[str, str]) -> None:
        super().__init__(
            "mlless.runtimes.zygote",
            [entry, str(cleanup or "")],
            {**environment, **os.environ, **ONE_THREAD},
        )

    @property
    def time_limit(self) -> None:
        """A process may take all the time it needs."""
        return None

    @property
    def memory(self) -> None:
        """A process may take what this machine has."""
        return None

    def end(self, functions: Collection[FunctionId]) -> None:
        """Have the zygote kill those of them that run; one that is stopped would not heed a softer word."""
        if running := self._running.intersection(functions):
            with contextlib.suppress(JobError):  # the zygote is gone and so are they: ``ended`` says so
                self._say(End(sorted(running)))
