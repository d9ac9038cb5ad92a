"""What a tuner is told and asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlless.job import Target

Floats = NDArray[np.float64]


class Contribution(msgspec.Struct, frozen=True):
    """What a worker did in a step: the seconds it was busy (others waited for it), entries it published."""

    worker: int
    seconds: float
    entries: int


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One closed step.

    ``time`` is when it was closed, in seconds. ``loss`` is the mean over its samples, None if all flushed.
    ``heldout`` holds the metrics of the model before it, where it was evaluated, and ``evaluating`` the
    seconds by which that made the step longer. ``merging`` are a worker's mean seconds of merging the updates
    of its peers. ``exchanged`` are the bytes of updates that were published and read, ``cost`` is the bill so
    far, in dollars.
    """

    step: int
    time: float
    loss: float | None
    workers: tuple[Contribution, ...]
    evaluating: float = 0.0
    heldout: dict[str, float] | None = None
    merging: float = 0.0
    exchanged: int = 0
    cost: float | None = None


class FittedCurve(msgspec.Struct, frozen=True):
    """A curve that a policy fitted to the losses, as points. The last points lie ahead of what had been seen.

    ``steps`` count the losses from 1. The points are all that it takes to draw the curve.
    """

    name: str
    steps: tuple[float, ...]
    losses: tuple[float, ...]


class Decision(msgspec.Struct, frozen=True):
    """The result of a look at the job after ``step``: who leaves, if anyone, the reason, and the numbers.

    ``curves`` are those that the decision rests on.
    """

    step: int
    action: Literal["stay", "leave"]
    workers: tuple[int, ...]
    why: str
    numbers: dict[str, float]
    curves: tuple[FittedCurve, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the job is to come to.

    ``batches`` is how many mini-batches it has at most, ``budget`` how many dollars, ``max_time`` how
    many seconds.
    """

    batches: int
    target: Target | None = None
    budget: float | None = None
    max_time: float | None = None

    def lower(self, value: float) -> float:
        """Return a value of the target's metric so that the lower is the better."""
        return -value if self.target is not None and self.target.metric == "auc" else value


@dataclass(frozen=True, kw_only=True)
class Question:
    """The job after ``step``, with one entry for each step so far whose loss is a number.

    ``members`` counts who took part in a step, ``seconds`` is how long it took without an evaluation,
    ``settled`` how many steps the membership had been what it was. ``heldout`` are pairs of
    an index into these and the target's metric, so that less is better. ``workers`` are those who would
    go on, with their means over the last steps; at least ``floor`` of them stay. ``knee`` is the index
    that was found when the first one left: what is behind remains so. ``merging`` and ``exchanged`` are
    those of a step with as many workers, typical of the last ones. ``time`` is in seconds since the start.
    """

    step: int
    losses: Floats
    members: Floats
    seconds: Floats
    settled: Floats
    heldout: tuple[tuple[int, float], ...]
    workers: tuple[Contribution, ...]
    floor: int
    goal: Goal
    knee: int | None = None
    merging: float = 0.0
    exchanged: float = 0.0
    cost: float | None = None
    time: float = 0.0

    @property
    def spare(self) -> int:
        """How many workers may leave."""
        return max(0, len(self.workers) - self.floor)

    def stay(self, why: str, /, *curves: FittedCurve, **numbers: float) -> Decision:
        """Return the decision that no one leaves."""
        return Decision(self.step, "stay", (), why, _finite(numbers), curves)

    def leave(
        self, workers: tuple[int, ...], why: str, /, *curves: FittedCurve, **numbers: float
    ) -> Decision:
        """Return the decision that ``workers`` leave."""
        return Decision(self.step, "leave", workers, why, _finite(numbers), curves)


class Policy(Protocol):
    """A rule by which workers leave. The numbers of a decision that they do name the ``knee``."""

    def due(self, *, steps: int, seconds: float) -> bool:
        """Return whether to look again, so many steps and seconds after the last look."""
        ...

    def decide(self, question: Question) -> Decision:
        """Return who leaves now, if anyone: never an exception, never below the floor."""
        ...


def traced(name: str, steps: Floats, losses: Floats) -> FittedCurve:
    """Return a curve's points where they are numbers, with the digits that can be seen."""
    seen = np.isfinite(losses)
    kept = [tuple(float(f"{value:.5g}") for value in values[seen]) for values in (steps, losses)]
    return FittedCurve(name, *kept)


def _finite(numbers: dict[str, float]) -> dict[str, float]:
    # JSON has no other numbers.
    return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}
