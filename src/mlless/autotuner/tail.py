"""The last part of a learning curve, to look far ahead with.

A curve of four parameters says well where the loss will be shortly, and badly when it comes down to a
target. On ML-1M, from a sixth to half of the way to an RMSE of 0.848, which took 303 steps, the
published form said 298 to 443 for the training loss, or never. A line in the logarithm of progress,
through the last half of the losses, said 267 to 319.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlless.autotuner.decision import Floats

_LEAST = 10  # losses


@dataclass(frozen=True)
class Tail:
    """The loss as ``level + slope * log(progress)``, with ``slope`` below zero.

    ``error`` is the root of the mean squared residual as a share of the mean loss.
    """

    level: float
    slope: float
    error: float

    def progress_at(self, loss: float) -> float:
        """Return the progress at which the loss comes down to ``loss``: infinite if that is never."""
        return float(np.exp(min((loss - self.level) / self.slope, 700.0)))


def fit_tail(progress: Floats, losses: Floats) -> Tail | None:
    """Return the line through the last half of the losses; None if they are few, or do not fall."""
    half = len(losses) // 2
    x, y = np.log(progress[half:]), losses[half:]
    if len(y) < _LEAST:
        return None
    spread = x - x.mean()
    slope = float(np.sum(spread * (y - y.mean())) / np.sum(spread**2))
    level = float(y.mean() - slope * x.mean())
    error = float(np.sqrt(np.mean((level + slope * x - y) ** 2)) / max(abs(y.mean()), 1e-300))
    if not (slope < 0 and np.isfinite([level, slope, error]).all()):
        return None
    return Tail(level, slope, error)
