"""Learning curves fitted to losses. The one place that needs SciPy, for the published rule alone.

Both forms are the published ones, fitted by bounded least squares with analytic derivatives, so that a
fit evaluates its curve EVALUATIONS times at most, on POINTS points at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import least_squares

from mlless.autotuner.decision import Floats

EVALUATIONS = 200
POINTS = 400
_STARTS = ((0.9, 1.0), (0.5, 0.5))  # of the asymptote as a share of the lowest loss, and the exponent
_LEAST = 8  # losses below which four parameters say nothing


@dataclass(frozen=True)
class Curve:
    """A fitted curve; ``error`` is the root of its mean squared relative residual.

    ``reference``: 1 / (a t^c + b) + d. ``local``: 1 / (a t^2 + b t + c) + d. All of a, b, c, d are from 0.
    Inside, times and losses are in units of ``span`` and ``scale``.
    """

    form: Literal["reference", "local"]
    parameters: tuple[float, float, float, float]
    span: float
    scale: float
    error: float
    evaluations: int

    def at(self, time: float) -> float:
        """Return the loss at a time; it falls towards the asymptote."""
        values, _ = _FORMS[self.form](np.array([max(time, 0.0) / self.span]), np.array(self.parameters))
        return float(values[0]) * self.scale


def fit_reference(times: Floats, losses: Floats) -> Curve | None:
    """Return the curve 1 / (a t^c + b) + d through losses, or None if there is none.

    Later losses weigh more.
    """
    return _fit("reference", times, losses)


def fit_local(times: Floats, losses: Floats) -> Curve | None:
    """Return the curve 1 / (a t^2 + b t + c) + d through losses, as above; None without one."""
    return _fit("local", times, losses)


@np.errstate(all="ignore")
def _fit(form: Literal["reference", "local"], times: Floats, losses: Floats) -> Curve | None:
    known = np.isfinite(times) & np.isfinite(losses) & (losses > 0) & (times > 0)
    times, losses = times[known], losses[known]
    if len(losses) < _LEAST:
        return None
    if len(losses) > POINTS:
        chosen = np.linspace(0, len(losses) - 1, POINTS).astype(int)
        times, losses = times[chosen], losses[chosen]
    span, scale = float(times[-1]), float(losses.max())
    x, y = times / span, losses / scale
    weights = np.arange(1, len(y) + 1) / len(y)  # sigma 1/i
    curve, spent = _FORMS[form], 0
    best: Curve | None = None
    for share, exponent in _STARTS:
        start = _start(form, x, y, share, exponent)
        try:
            found = least_squares(
                lambda p: (curve(x, p)[0] - y) * weights,
                start,
                jac=lambda p: curve(x, p)[1] * weights[:, None],
                bounds=(0.0, np.inf),
                max_nfev=EVALUATIONS // len(_STARTS),
            )
        except (ValueError, np.linalg.LinAlgError):  # residuals or steps that are not numbers
            continue
        spent += int(found.nfev)
        error = float(np.sqrt(np.mean(((curve(x, found.x)[0] - y) / y) ** 2)))
        if np.isfinite(error) and (best is None or error < best.error):
            best = Curve(form, tuple(map(float, found.x)), span, scale, error, spent)  # type: ignore[arg-type]
    return best


def _start(form: str, x: Floats, y: Floats, share: float, exponent: float) -> Floats:
    d = share * float(y.min())
    first = 1 / max(float(np.median(y[:5])) - d, 1e-6)
    rise = max(1 / max(float(np.median(y[-5:])) - d, 1e-6) - first, 1e-3)
    if form == "reference":
        return np.array([rise, first, exponent, d])
    return np.array([rise * (1 - exponent) + 1e-3, rise * exponent, first, d])


def _reference(x: Floats, p: Floats) -> tuple[Floats, Floats]:
    a, b, c, d = p
    power = x**c
    base = np.maximum(a * power + b, 1e-9)
    slope = -1 / base**2
    log = np.log(np.maximum(x, 1e-12))
    return 1 / base + d, np.stack([slope * power, slope, slope * a * power * log, np.ones_like(x)], axis=1)


def _local(x: Floats, p: Floats) -> tuple[Floats, Floats]:
    a, b, c, d = p
    base = np.maximum(a * x**2 + b * x + c, 1e-9)
    slope = -1 / base**2
    return 1 / base + d, np.stack([slope * x**2, slope * x, slope, np.ones_like(x)], axis=1)


_FORMS: dict[str, Callable[[Floats, Floats], tuple[Floats, Floats]]] = {
    "reference": _reference,
    "local": _local,
}
