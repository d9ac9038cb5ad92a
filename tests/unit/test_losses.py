"""How functions are lost: in which words, and how often that may be."""

from __future__ import annotations

import pytest

from mlless.errors import WorkerFailed, WorkerLost
from mlless.instructions import Exited
from mlless.losses import LEAST, PER_WORKER, TRIES, WINDOW, Losses, died, failed
from mlless.messages import Failure

CRASH = "Traceback (most recent call last):\n  ...\nMemoryError: no more"


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (
            Exited(1, 0, True, "signal SIGKILL"),
            "it died: found signal SIGKILL. Was it out of memory, or killed from outside?",
        ),
        (
            Exited(1, 0, True, "signal SIGKILL", peak=70 << 20),
            "it died: found signal SIGKILL. It had 70 MB of memory at most: was it out of memory, or killed "
            "from outside?",
        ),
        (
            Exited(1, 0, False, "exit code 1"),
            "it died: found exit code 1. Set MLLESS_DEBUG=1 to see its own traceback",
        ),
        (Exited(1, 0, False, "exit code 1", "it ran out of time"), "it died: it ran out of time"),
        (
            Exited(1, 0, False, "exit code 1", CRASH),
            f"it died: MemoryError: no more. Its traceback:\n{CRASH}",
        ),
    ],
)
def test_a_death_is_told_with_what_is_known_of_it(ended: Exited, told: str) -> None:
    error = died(ended, "it died")
    assert isinstance(error, WorkerLost)
    assert str(error) == told


@pytest.mark.parametrize(
    ("failure", "told", "code"),
    [
        (Failure(1, 0, 2, "no room", 5, ""), "it failed: no room", 5),
        (Failure(1, 0, 2, "KeyError(1)", 0, CRASH), f"it failed: KeyError(1). Its traceback:\n{CRASH}", 6),
    ],
)
def test_a_failure_is_told_in_its_own_words(failure: Failure, told: str, code: int) -> None:
    error = failed(failure, "it failed")
    assert isinstance(error, WorkerFailed)
    assert (str(error), error.exit_code) == (told, code)


@pytest.mark.parametrize("workers", [1, 5])
def test_so_many_losses_in_a_window_are_enough(workers: int) -> None:
    losses, most = Losses(workers), max(LEAST, PER_WORKER * workers)
    assert not any(losses.add(worker, 0.0) for worker in range(most))
    assert losses.add(most, WINDOW)
    losses = Losses(workers)
    assert not any(losses.add(worker, 0.0) for worker in range(most))
    assert not losses.add(most, WINDOW + 0.1)


def test_so_many_losses_of_a_worker_in_a_step_are_enough() -> None:
    losses = Losses(1)
    assert [losses.add(0, 0.0) for _ in range(TRIES)] == [False] * (TRIES - 1) + [True]
    losses.go_on()
    assert not losses.add(0, 0.0)
