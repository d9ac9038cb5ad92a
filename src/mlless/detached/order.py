"""What a detached job is told, and what is heard of it until it is under way.

The order goes through a pipe, as it may hold passwords: these are in no file and on no command line.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mlless.deployment import Deployment
from mlless.job import JobSpec
from mlless.locations import Place, Prefix, place_of


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a guardian is asked to run.

    This is the ``job``, with its files at ``out`` and its output in the file ``log``. Without a job the run
    that is there is resumed, with the options ``anew`` by name and, if it was moved, with its data set at
    ``dataset``. ``number`` counts the supervisors that have begun before, and ``losses`` has a line for each
    that was killed. All of them hold the run's lease as this ``holder``. A caller that waits for it to be
    ``called`` does not wait for it to be under way. A supervisor that is a function may take ``limit``
    seconds.
    """

    out: str
    log: str
    deployment: Deployment
    job: JobSpec | None = None
    overwrite: bool = False
    anew: dict[str, Any] = {}
    dataset: str | None = None
    losses: tuple[str, ...] = ()
    holder: str
    number: int = 0
    called: bool = False
    limit: float | None = None

    @property
    def is_for_a_function(self) -> bool:
        """Whether the supervisor is a function, too."""
        return for_function(self.deployment, place_of(self.out))


def for_function(deployment: Deployment, out: Place) -> bool:
    """Return whether the supervisor is a function of Lithops, as it is if it can write to the run's place."""
    return deployment.runtime == "lithops" and isinstance(out, Prefix)


class Answer(msgspec.Struct, frozen=True):
    """The job is under way, or its supervisor called, with the ``code`` 0; or why not, and the exit code."""

    code: int
    text: str = ""
