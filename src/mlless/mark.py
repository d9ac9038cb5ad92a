"""PURE: where a job stands: its plans, from where replicas start, and its progress.

A new job starts from the mark of its first plan, one that is resumed from that of its checkpoint. Whenever
nobody is left who has the model, a job goes back to its newest mark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import msgspec

from mlless.job import JobSpec
from mlless.membership import Schedule
from mlless.messages import Origin, Plan
from mlless.models import model_of
from mlless.records import StepRecord
from mlless.stopping import Progress, Score


@dataclass(frozen=True)
class Mark:
    """A step from which a job can go on: its plans, from where replicas start, and how the job stood.

    With slack there are plans of ``further`` steps.
    """

    plan: Plan
    following: Plan | None
    origin: Origin
    progress: Progress
    further: tuple[Plan, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Where its origin is in the store."""
        return (self.origin.key, *self.origin.parts)

    @property
    def in_one_part(self) -> Mark:
        """The mark with its origin in one part."""
        return replace(self, origin=msgspec.structs.replace(self.origin, parts=()))

    @property
    def ahead(self) -> tuple[Plan, ...]:
        """The plans of the steps after the first one, as far as there are any."""
        return () if self.following is None else (self.following, *self.further)


# A checkpoint is made at an evaluation after so many seconds, at any step after so many, and takes at most
# this share of the time.
_OFTEN, _SELDOM, SHARE = 0.5, 10.0, 0.02


class Rhythm:
    """When a job makes a checkpoint: as often as is cheap, and ``every`` so many seconds if given."""

    def __init__(self, every: float | None) -> None:
        self._every = math.inf if every is None else every
        self._begun = self._newest = self._seconds = 0.0

    def begin(self, now: float) -> None:
        """Count time from ``now`` on."""
        self._begun = self._newest = now

    def is_due(self, plan: Plan, now: float) -> bool:
        """Return whether one is due as the step of a plan is closed."""
        apart = now - self._newest
        cheap = self._seconds <= SHARE * (now - self._begun)
        return apart >= self._every or (cheap and apart >= (_OFTEN if plan.evaluate else _SELDOM))

    def make(self, now: float) -> None:
        """Take in that one is made now."""
        self._newest = now

    def made(self, seconds: float) -> None:
        """Take in how long it took."""
        self._seconds += seconds


@dataclass(frozen=True)
class Past:
    """What a job that is resumed has behind it: seconds, dollars, and the ``records`` of the steps before.

    Its store has the best model of the mark's progress under ``best_key``, if there is one.
    """

    seconds: float = 0.0
    cost: float = 0.0
    best_key: str = ""
    records: Sequence[StepRecord] = ()


def resumed(spec: JobSpec, schedule: Schedule, mark: Mark, workers: int | None, best: Score | None) -> Mark:
    """Return the mark from which a job goes on that was lost, its rules being those of ``spec``.

    It has so many ``workers``, or None for those it had. ``best`` is the best model that is left.
    """
    plan = mark.plan if workers is None else schedule.dealt(mark.plan, workers)
    # An end that was decided on is to be decided on anew.
    ahead = tuple(takewhile(lambda one: one.trainers, mark.ahead if plan is mark.plan else ()))
    following, *further = ahead or (schedule.after(plan),)
    progress = replace(mark.progress, rules=spec.stop, best=best)
    return Mark(plan, following, mark.origin, progress, tuple(further))


def beginning(spec: JobSpec, schedule: Schedule, origin: Origin) -> Mark:
    """Return the mark of a new job, whose replicas start from ``origin``."""
    plan = schedule.first(spec.workers)
    progress = Progress(spec.stop, model_of(spec.model).null_loss)
    return Mark(plan, schedule.after(plan), origin, progress)
