"""For how long a job that is started detached may not be under way."""

from __future__ import annotations

from mlless.deployment import Deployment
from mlless.detached.launching import patience
from mlless.job import Deadlines
from mlless.runtimes.lithops import LithopsRuntime


def test_a_runtime_of_the_cloud_has_time_to_be_deployed() -> None:
    """Lithops builds it when it is first used; then workers have as long to start as ever."""
    deadlines = Deadlines(start=300.0)
    here = patience(Deployment(), deadlines)
    there = patience(Deployment(store="redis://127.0.0.1", runtime="lithops"), deadlines)
    assert here > deadlines.start
    assert there > deadlines.start + LithopsRuntime.START_DEADLINE
