"""The published rule: let one worker go as long as the loss keeps to the course it had before.

MLLess (Middleware'21, section on the scale-in auto-tuner, and its code). Done robustly: too few points, a fit
that fails or a loss that is no number keep everyone. The published code lets the slowest reporter go as
it happens to be; here the leaver is chosen, see ``leaver``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlless.autotuner.curves import Curve, fit_local, fit_reference
from mlless.autotuner.decision import Decision, FittedCurve, Question, traced
from mlless.autotuner.knee import published_knee
from mlless.autotuner.leaver import choose
from mlless.autotuner.steptime import fit_speed

_TRACED = 40  # points of a curve in a decision's record


@dataclass(frozen=True)
class Published:
    """``interval`` and ``horizon`` in seconds, ``tolerance`` in percent: the published values.

    ``root`` says that losses are mean squares of which the roots are to be looked at.
    """

    interval: float = 20.0
    horizon: float = 10.0
    tolerance: float = 1.0
    root: bool = False

    def due(self, *, steps: int, seconds: float) -> bool:
        """Return whether the interval is over."""
        return steps > 0 and seconds >= self.interval

    @np.errstate(all="ignore")  # whatever losses are like, numbers are looked at before they count
    def decide(self, question: Question) -> Decision:
        """Return whether one worker leaves: untested right after the knee, then by the projected losses."""
        if question.spare == 0:
            return question.stay("no worker can be spared")
        losses = np.sqrt(np.maximum(question.losses, 0.0)) if self.root else question.losses
        knee = published_knee(losses) if question.knee is None else question.knee
        if knee is None:
            return question.stay("before the knee", workers=len(question.workers))
        if question.members[-1] != len(question.workers):
            return question.stay("the last one is still leaving", knee=knee)
        count = len(losses)
        times = np.arange(1.0, count + 1)
        changes = np.flatnonzero(np.diff(question.members))
        leavers, why = choose(question.workers, 1)
        if not len(changes):
            return question.leave(leavers, f"past the knee; {why}", knee=knee)
        reference = fit_reference(times, losses)
        since = int(changes[-1]) + 1
        local = fit_local(times[since:] - since, losses[since:])
        speed = fit_speed(question.members, question.seconds, question.settled)
        if reference is None or local is None or speed is None:
            return question.stay("too little to tell since the last one left", knee=knee)
        ahead = count + self.horizon * speed.at(question.members[-1])
        expected, projected = reference.at(ahead), local.at(ahead - since)
        excess = 100 * (projected - expected) / expected if expected > 0 else np.inf
        numbers = {
            "knee": knee,
            "reference": expected,
            "projected": projected,
            "excess": excess,
            "tolerance": self.tolerance,
            "error_reference": reference.error,
            "error_local": local.error,
            "speed_base": speed.base,
            "speed_slope": speed.slope,
        }
        curves = self._traced("reference", reference, 0, ahead), self._traced("local", local, since, ahead)
        if not excess < self.tolerance:
            return question.stay(f"the loss is {excess:.2f} % above its former course", *curves, **numbers)
        return question.leave(leavers, f"the loss keeps to its former course; {why}", *curves, **numbers)

    def _traced(self, name: str, curve: Curve, since: int, ahead: float) -> FittedCurve:
        steps = np.linspace(since + 1.0, ahead, _TRACED)
        losses = np.array([curve.at(step - since) for step in steps])
        return traced(name, steps, losses**2 if self.root else losses)
