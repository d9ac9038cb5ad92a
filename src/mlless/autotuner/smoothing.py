"""Smoothing of a series of losses."""

from __future__ import annotations

import numpy as np

from mlless.autotuner.decision import Floats

SPAN = 20


def smooth(values: Floats, span: int = SPAN) -> Floats:
    """Return the mean of an exponentially weighted average forwards and one backwards.

    So that neither end lags behind. Weights are those of the published system: they fall by
    1 - 2 / (span + 1) a step and sum up to one at every place.
    """
    decay = 1 - 2 / (span + 1)
    weights = decay ** np.arange(min(len(values), 12 * span))  # what is further away weighs less than 1e-10
    scale = np.convolve(np.ones(len(values)), weights)[: len(values)]
    forwards = np.convolve(values, weights)[: len(values)] / scale
    backwards = (np.convolve(values[::-1], weights)[: len(values)] / scale)[::-1]
    return (forwards + backwards) / 2


def slopes(losses: Floats, span: int = SPAN) -> Floats:
    """Return the smoothed change of the smoothed losses from step to step, one less than there are losses."""
    return smooth(np.diff(smooth(losses, span)), span)
