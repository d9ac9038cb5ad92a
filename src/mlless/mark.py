"""PURE: where a job stands: its plans, from where replicas start, and its progress.

A new job starts from the mark of its first plan, one that is resumed from that of its checkpoint. Whenever
nobody is left who has the model, a job goes back to its newest mark.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlless.job import JobSpec
from mlless.membership import Schedule
from mlless.messages import Origin, Plan
from mlless.models import model_of
from mlless.stopping import Progress


@dataclass(frozen=True)
class Mark:
    """A step from which a job can go on: its plans, from where replicas start, and how the job stood."""

    plan: Plan
    following: Plan | None
    origin: Origin
    progress: Progress


@dataclass(frozen=True)
class Past:
    """What a job that is resumed has behind it: seconds, and the key of the best model in its store, if any.

    That model is the best one of the progress of its mark.
    """

    seconds: float = 0.0
    best_key: str = ""


def beginning(spec: JobSpec, schedule: Schedule, origin: Origin) -> Mark:
    """Return the mark of a new job, whose replicas start from ``origin``."""
    plan = schedule.first(spec.workers)
    progress = Progress(spec.stop, model_of(spec.model).null_loss)
    return Mark(plan, schedule.after(plan), origin, progress)
