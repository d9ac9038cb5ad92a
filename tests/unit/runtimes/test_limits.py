"""Limits of processes: whether there is room in them, and which of them has ended a process."""

from __future__ import annotations

import re
import signal

import pytest

from mlless.errors import UsageError
from mlless.memory import MB
from mlless.runtimes.limits import Limits

BOTH = Limits(seconds=1.5, memory=64)


@pytest.mark.parametrize(
    ("limits", "code", "peak", "cause"),
    [
        (BOTH, -signal.SIGALRM, 10, "its time limit of 1.5 s was over; raise --time-limit"),
        (
            BOTH,
            -signal.SIGUSR1,
            64 * MB + 1,
            "out of memory: it may have 64 MB and had 65 MB; raise --memory",
        ),
        # The kernel's last count is not exact.
        (BOTH, -signal.SIGUSR1, MB, "out of memory: it may have 64 MB and had 65 MB; raise --memory"),
        (BOTH, -signal.SIGKILL, 65 * MB, ""),  # from outside
        (BOTH, -signal.SIGTERM, 65 * MB, ""),
        (BOTH, 0, 65 * MB, ""),  # it was done before anyone looked
        (BOTH, 1, 10, ""),
        (Limits(), -signal.SIGALRM, 10, ""),
        (Limits(), -signal.SIGUSR1, 1 << 40, ""),
    ],
)
def test_what_has_ended_a_process(limits: Limits, code: int, peak: int, cause: str) -> None:
    assert limits.cause(code, peak) == cause


def test_a_limit_that_a_fork_is_above_from_the_start_is_refused() -> None:
    refusal = Limits(memory=1).refusal()
    assert isinstance(refusal, UsageError)
    words = r"with nothing read yet: expected more than (\d+) MB .* found 1 MB. Raise `memory`"
    bare = re.search(words, str(refusal))
    assert bare
    assert Limits(memory=int(bare[1]) + 1).refusal() is None
    assert Limits().refusal() is None
