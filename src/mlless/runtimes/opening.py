"""Which adapter a runtime's name stands for. A client is imported when it is asked for, not before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlless.deployment import Deployment
from mlless.runtimes.ports import Runtime


def open_runtime(
    deployment: Deployment, entry: str, cleanup: Path | None, environment: Mapping[str, str]
) -> Runtime:
    """Return the runtime that ``deployment`` names, to start functions at the dotted name ``entry``.

    ``cleanup`` is a folder of this machine to be removed should this process die; ``environment``
    holds variables for the functions.
    """
    if deployment.runtime == "lithops":
        from mlless.runtimes.lithops import LithopsRuntime

        return LithopsRuntime(entry, deployment.memory, deployment.time_limit, environment)
    from mlless.runtimes.limits import Limits
    from mlless.runtimes.processes import ProcessRuntime

    limits = Limits(deployment.time_limit, deployment.memory)
    return ProcessRuntime(entry, cleanup, environment, limits)
