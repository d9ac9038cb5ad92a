"""Runtime: functions are processes of this machine, forked from a zygote that has NumPy loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mlless.runtimes.hosted import HostedRuntime
from mlless.runtimes.ports import ONE_THREAD


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
