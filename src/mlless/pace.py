"""PURE: how long the steps of a job take, and for how long a silent worker is waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import fmean, median

from mlless.job import Deadlines
from mlless.messages import Plan

FLOOR = 5.0  # seconds that any worker may be silent
_LAST_WAIT = 5.0  # seconds of silence, or twice the usual step: then a job that is to end does so
_TIMES = 10  # as long as the usual step
_RECENT = 50  # steps that tell what is usual
_LEAST = 3  # of them; the first ones are cold


class Pace:
    """The usual length of a step, and of an evaluation, of one job.

    ``launching`` is how long its runtime took to launch the newest functions: meanwhile no step ends. With
    ``slack`` several steps may be closed at once when a slow worker catches up: what counts is their mean.
    With local steps the usual one has as many mini-batches as the longest: a short one ends an epoch.
    """

    def __init__(self, deadlines: Deadlines, slack: int = 0) -> None:
        self._deadlines, self.launching = deadlines, 0.0
        self._newest: deque[float] = deque(maxlen=slack + 1)
        self._steps: deque[float] = deque(maxlen=_RECENT)
        self._evaluations: deque[float] = deque(maxlen=_RECENT)
        self._length = 1

    def expect(self, planned: Iterable[Plan]) -> None:
        """Take in steps that are to come: one longer than all before may take as many times as long."""
        longest = max(plan.length for plan in planned)
        if longest > self._length:
            stretch, self._length = longest / self._length, longest
            newest = [*self._steps][-_LEAST:]  # soon the first ones that are as long tell what is usual
            self._steps = deque((stretch * seconds for seconds in newest), maxlen=_RECENT)

    def add(self, plan: Plan, seconds: float, evaluating: float) -> None:
        """Take in a closed step, and the seconds of it in which the slowest worker evaluated."""
        if plan.evaluate:
            self._evaluations.append(evaluating)
        if plan.trainers and plan.length == self._length:
            self._newest.append(max(seconds - evaluating, 0.0))
            self._steps.append(fmean(self._newest))

    @property
    def usual(self) -> float:
        """The seconds that a step usually takes, 0 as long as none is known."""
        return median(self._steps) if self._steps else 0.0

    @property
    def whole(self) -> float:
        """The seconds that a step with an evaluation usually takes."""
        return self.usual + max(self._evaluations, default=0.0)

    @property
    def last_wait(self) -> float:
        """The seconds of silence after which a job that is to end does so with the best model so far."""
        return max(_LAST_WAIT, 2 * self.usual)

    @property
    def cold(self) -> float:
        """The seconds after which a worker that has its rows to read first counts as lost."""
        return self._deadlines.step if self._deadlines.silence is None else self._deadlines.silence

    def patience(self, plan: Plan) -> float:
        """Return the seconds after which a worker that has not reported the step counts as lost.

        That is ten times the usual. The usual time is not known for the first steps, and for steps in which
        whole models are published and merged. These have a fixed time.
        """
        if self._deadlines.silence is not None or len(self._steps) < _LEAST or plan.flush or plan.last:
            return self.cold
        usual = self.whole if plan.evaluate else self.usual
        return min(max(FLOOR, _TIMES * usual), self._deadlines.step)
