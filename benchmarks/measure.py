"""Taking times side by side: contestants take turns, so that a loud moment hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np

Call = Callable[[int], object]
Seconds = dict[str, list[float]]


def take_turns(
    contestants: Mapping[str, Call], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> Seconds:
    """Return the seconds of every call; a round calls each contestant with its number, in turning order."""
    names, seconds = list(contestants), {name: [] for name in contestants}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            contestants[name](number)
            seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Seconds, slow: str, fast: str) -> float:
    """Return how many times longer ``slow`` took: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def bandwidth() -> float:
    """Return the bytes a second that one core moves, reading and writing arrays far larger than its caches.

    The better of a copy and a scaled addition in place, as in STREAM; a write counts as one pass.
    """
    n = 1 << 25
    a, b = np.ones(n, np.float32), np.ones(n, np.float32)
    seconds = take_turns({"copy": lambda _: np.copyto(a, b), "add": lambda _: np.add(a, b, out=a)}, 9)
    return max(
        2 * a.nbytes / statistics.median(seconds["copy"]), 3 * a.nbytes / statistics.median(seconds["add"])
    )
