"""Who leaves: whoever costs the most or else contributes the least."""

from __future__ import annotations

import numpy as np

from mlless.autotuner.decision import Contribution

_STRAGGLER = 1.1  # times the median of the others


def choose(workers: tuple[Contribution, ...], count: int) -> tuple[tuple[int, ...], str]:
    """Return ``count`` workers and why they are the ones.

    A straggler first, for all others are paid for the time they wait for it. Without one, whoever has
    published the fewest entries: the model learns the least from it, and its residual is flushed anyway.
    Of equals the one with the highest id, since the lowest keeps the best model.
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
