"""PURE: when a job stops, and which model is the best so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from mlless.job import Stop

SMOOTHING = 0.1  # weight of the newest step in the training loss, as in the published experiments
DIVERGED = 20.0  # times the loss at the start; a healthy start overshoots by far less


class Score(NamedTuple):
    """A model: the step before which it was evaluated, its held-out metrics, and the value that ranks it.

    Lower is better.
    """

    step: int
    heldout: dict[str, float]
    value: float


class Choice(NamedTuple):
    """The model that a job ends with: of which step, its held-out metrics, whether it is an earlier one."""

    step: int
    heldout: dict[str, float]
    restored: bool


@dataclass
class Progress:
    """The job's course so far. ``train_loss`` is the exponential average of the steps' mean loss.

    ``null_loss`` is that of a constant prediction. One mini-batch may happen to lose far less, so what
    counts as diverged is measured against the larger of the two.
    """

    rules: Stop
    null_loss: float
    train_loss: float | None = None
    first_loss: float | None = None
    best: Score | None = None
    since_best: int = 0
    heldout: dict[str, float] = field(default_factory=dict)

    def add_step(self, mean_loss: float) -> None:
        """Take in a step's mean loss over its samples."""
        if self.train_loss is None:
            self.first_loss = self.train_loss = mean_loss
        else:
            self.train_loss += SMOOTHING * (mean_loss - self.train_loss)

    def add_evaluation(self, step: int, heldout: dict[str, float]) -> bool:
        """Take in the evaluation of the model before ``step``; return whether it is the best so far.

        Without held-out data the training loss stands in; a start without any is the worst that there is.
        """
        self.heldout = heldout
        value = next(iter(heldout.values()), math.inf if self.train_loss is None else self.train_loss)
        if self.best is None or better(value, self.best.value):
            gained = self.best is None or not self.best.value - value < self.rules.least_gain
            self.best, self.since_best = Score(step, heldout, value), 0 if gained else self.since_best + 1
            return True
        self.since_best += step > self.best.step  # a job that has gone back takes steps of before it again
        return False

    def choose(self, step: int, heldout: dict[str, float] | None) -> Choice:
        """Return whether the model of ``step``, of these metrics, is kept or gives way to the best so far.

        Without metrics, None, it has diverged and is never kept.
        """
        best, value = self.best, next(iter((heldout or {}).values()), None)
        if best is None or (heldout is not None and (value is None or not better(best.value, value))):
            return Choice(step, finite(heldout or {}), restored=False)
        return Choice(best.step, finite(best.heldout), restored=True)

    def diverged(self, *, finite: bool) -> bool:
        """Return whether the model has left the realm of useful numbers."""
        if not finite or (self.train_loss is not None and not math.isfinite(self.train_loss)):
            return True
        if self.train_loss is None or self.first_loss is None:
            return False
        return self.train_loss > DIVERGED * max(self.first_loss, self.null_loss)

    def reason(self, *, evaluated: bool, spent: str | None = None) -> str | None:
        """Return why to stop now (``target``, ``cost``, ``time``, ``patience``), or None to go on.

        ``spent`` is which budget allows for no further step, ``cost`` or ``time``.
        """
        rules = self.rules
        if rules.target is not None:
            name = rules.target.metric
            value = self.train_loss if name == "train_loss" else self.heldout.get(name) if evaluated else None
            if value is not None and (
                value >= rules.target.value if name == "auc" else value <= rules.target.value
            ):
                return "target"
        if spent is not None:
            return spent
        if evaluated and rules.patience is not None and self.since_best >= rules.patience:
            return "patience"
        return None


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics that have a value."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def better(value: float, best: float) -> bool:
    """Return whether ``value`` is the better of two metrics to be made small; not a number is the worst."""
    return value < best or (math.isnan(best) and not math.isnan(value))
