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
    """Run this ``job``, its files at ``out``, what it prints in the file ``log``.

    Without a job the run that is there is resumed, with what is said ``anew`` by name; its data set may have
    been moved. So many supervisors have begun before: ``number``. ``losses`` tells of those that were killed,
    a line each. All hold the run's lease as this ``holder``. Who waits for it to be ``called`` does not wait
    for it to be under way. One that is a function has so many seconds, its ``limit``.
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
