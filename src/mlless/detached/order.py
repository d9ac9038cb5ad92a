"""What a detached job is told, and what is heard of it until it is under way.

The order goes through a pipe, as it may hold passwords: these are in no file and on no command line.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mlless.deployment import Deployment
from mlless.job import JobSpec


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Run this ``job``, its files at ``out``, what it prints in the file ``log``.

    Without a job the run that is there is resumed, with what is said ``anew`` by name; its data set may have
    been moved. ``losses`` tells of the supervisors that have begun before and were killed, a line each. All
    hold the run's lease as this ``holder``.
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


class Answer(msgspec.Struct, frozen=True):
    """The job is under way, with the ``code`` 0; otherwise why not, and the exit code that says so."""

    code: int
    text: str = ""
