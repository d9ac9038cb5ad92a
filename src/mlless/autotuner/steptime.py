"""How many steps a second a number of workers takes.

It is a line through the speeds that were seen. The published measurements are a line in speed (4.438 - 0.2425
p steps/s for 5 to 10 workers), but the published code fits one to the seconds of a step. The line in speed
promises less of workers that leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mlless.autotuner.decision import Floats

IGNORED = 4  # steps after a change of the membership
_WINDOW = 10  # steps of the rolling median
_OUTLIER = 0.05  # off that median
_LEAST = 3  # steps at one number of workers
_ENOUGH = 500


@dataclass(frozen=True)
class Speed:
    """Steps a second: ``base + slope * workers``, seen from ``least`` to ``most`` workers."""

    base: float
    slope: float
    least: int
    most: int

    def at(self, workers: float) -> float:
        """Return the steps a second of so many workers."""
        return max(self.base + self.slope * workers, 1e-9)


def fit_speed(members: Floats, seconds: Floats, settled: Floats, *, merging: float = 0.0) -> Speed | None:
    """Return the speed as it depends on the number of workers; None while too little has been seen.

    As long as one number of workers has been seen alone, what is known to grow with it is a worker's
    seconds of ``merging`` the updates of its peers. Fewer workers are never taken to be slower.
    """
    usable = (settled >= IGNORED) & np.isfinite(seconds) & (seconds > 0)
    seen: list[tuple[int, float, int]] = []
    for workers in np.unique(members[usable]).astype(int):
        taken = _inliers(seconds[usable & (members == workers)][-_ENOUGH:])
        if len(taken) >= _LEAST:
            seen.append((int(workers), 1 / float(np.median(taken)), len(taken)))
    if not seen:
        return None
    counts, speeds, weights = (np.array(column, float) for column in zip(*seen, strict=True))
    least, most = int(counts.min()), int(counts.max())
    if len(seen) == 1:
        fewer = max(1 / speeds[0] - max(merging, 0.0) / max(least - 1, 1), 0.5 / speeds[0])
        slope = float(speeds[0] - 1 / fewer) if least > 1 else 0.0
    else:
        centre = np.average(counts, weights=weights)
        spread = counts - centre
        slope = float(np.sum(weights * spread * speeds) / np.sum(weights * spread**2))
    slope = min(slope, 0.0)
    base = float(np.average(speeds - slope * counts, weights=weights))
    return Speed(base, slope, least, most)


def _inliers(seconds: Floats) -> Floats:
    """Return the times near their rolling median, or all of them where most are not."""
    if len(seconds) < _WINDOW:
        return seconds
    medians = np.median(sliding_window_view(seconds, _WINDOW), axis=1)
    medians = np.concatenate([np.full(_WINDOW - 1, medians[0]), medians])
    near = np.abs(seconds - medians) <= _OUTLIER * medians
    return seconds[near] if 2 * near.sum() >= len(seconds) else seconds
