"""Where the steep part of a loss curve ends. Before it every worker earns its keep, and no one leaves."""

from __future__ import annotations

import numpy as np

from mlless.autotuner.decision import Floats
from mlless.autotuner.smoothing import SPAN, slopes

SLOPE = -7.5e-5  # a step, of the published rule
SHARE = 0.1  # of the steepest slope
CALLS = 5
_LEAST = SPAN // 2  # losses below which there is nothing to see


def published_knee(losses: Floats) -> int | None:
    """Return the first step whose slope is above SLOPE, once that has been the same for CALLS steps.

    The published rule. It knows losses of one scale alone, and a number of steps of the published
    settings: faster ones may reach any useful target before their slope has come down that far. What comes
    before the steepest slope is left out, or a loss that rises at first would be past its knee at once.
    """
    found = {_first_above(losses[: len(losses) - back], SLOPE) for back in range(CALLS)}
    return found.pop() if len(found) == 1 else None


def relative_knee(losses: Floats) -> int | None:
    """Return the first step from which on the loss falls at less than SHARE of its steepest.

    It must have done so for the last CALLS steps. Slopes are compared with one another, so the scale
    of losses and the length of the job do not matter.
    """
    if len(losses) < _LEAST + CALLS:
        return None
    slope = slopes(losses, _LEAST)
    steepest = float(slope.min())
    # A loss that does not fall has no steep part that could have come to its end.
    if steepest >= -1e-9 * float(np.abs(losses).max()):
        return None
    steep = np.flatnonzero(slope < SHARE * steepest)
    knee = int(steep[-1]) + 1
    return knee if len(slope) - knee >= CALLS else None


def _first_above(losses: Floats, slope: float) -> int | None:
    if len(losses) < _LEAST:
        return None
    found = slopes(losses)
    steepest = int(np.argmin(found))
    above = np.flatnonzero(found[steepest:] > slope)
    return steepest + int(above[0]) if len(above) else None
