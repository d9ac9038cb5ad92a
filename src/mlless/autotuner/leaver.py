"""Chooses who leaves: the worker that costs the most, or else the one that contributes the least."""

from __future__ import annotations

import numpy as np

from mlless.autotuner.decision import Contribution

_STRAGGLER = 1.1  # times the median of the others


def choose(workers: tuple[Contribution, ...], count: int) -> tuple[tuple[int, ...], str]:
    """Return ``count`` workers that leave, and why.

    A straggler leaves first, because all others are paid while they wait for it. Without one it is the worker
    that has published the fewest entries. The model learns the least from it, and its residual is flushed
    anyway. Of equal ones the highest id leaves, because the lowest one keeps the best model.
    """
    left, chosen, reasons = list(workers), [], []
    for _ in range(count):
        slowest = max(left, key=lambda one: (one.seconds, one.worker))
        median = float(np.median([one.seconds for one in left if one is not slowest] or [slowest.seconds]))
        if slowest.seconds > _STRAGGLER * median > 0:
            leaver = slowest
            reasons.append(f"worker {leaver.worker} keeps the others waiting")
        else:
            leaver = min(left, key=lambda one: (one.entries, -one.worker))
            reasons.append(f"worker {leaver.worker} publishes the least")
        left.remove(leaver)
        chosen.append(leaver.worker)
    return tuple(sorted(chosen)), ", ".join(reasons)
