"""What a detached job is told, and what is heard of it until it is under way.

The order goes through a pipe, as it may hold passwords: these are in no file and on no command line.
"""

from __future__ import annotations

import msgspec

from mlless.deployment import Deployment
from mlless.job import JobSpec


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Run this job, its files at ``out``, what it prints in the file ``log``."""

    job: JobSpec
    deployment: Deployment
    out: str
    overwrite: bool
    log: str


class Answer(msgspec.Struct, frozen=True):
    """The job is under way, with the ``code`` 0; otherwise why not, and the exit code that says so."""

    code: int
    text: str = ""
