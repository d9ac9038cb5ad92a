"""What runs are compared by: when each first came to a value of the metric that all of them came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlless.report.comparison.recorded import Point, Recorded, points
from mlless.report.wording import duration, money


@dataclass(frozen=True)
class Milestone:
    """A value of a metric of which less is better, and where each run first came to it, by name."""

    metric: str
    level: float
    arrivals: dict[str, Point]


def milestone_of(runs: Sequence[Recorded]) -> Milestone | None:
    """Return the target that all runs had and met, or else the best that all of them came to.

    None where they have no metric in common, or one of them has no value of it.
    """
    (metric, *others) = {run.metric for run in runs}
    courses = {run.name: points(run, metric) for run in runs}
    if others or not all(courses.values()):
        return None
    level = max(min(point.value for point in course) for course in courses.values())
    (target, *different) = {run.summary.job.stop.target for run in runs}
    if target is not None and not different and target.metric == metric:
        level = max(level, target.value)
    arrivals = {
        name: next(point for point in course if point.value <= level) for name, course in courses.items()
    }
    return Milestone(metric, level, arrivals)


def verdict(milestone: Milestone) -> str:
    """Return in a sentence or two which run came there the quickest, and which the cheapest."""
    what = f"{milestone.metric} {milestone.level:.4f}"
    seconds = {name: point.seconds for name, point in milestone.arrivals.items()}
    dollars = {name: point.dollars for name, point in milestone.arrivals.items() if point.dollars is not None}
    if len(seconds) == 1:
        (name,) = seconds
        cost = f", for {money(dollars[name])}" if dollars else ""
        return f"Came to {what} in {duration(seconds[name])}{cost}."
    told = [f"All came to {what}.", f"The quickest was {_leader(seconds, duration)}."]
    if len(dollars) == len(seconds):
        told.append(f"The cheapest was {_leader(dollars, money)}.")
    return " ".join(told)


def _leader(values: Mapping[str, float], worded: Callable[[float], str]) -> str:
    (name, least), (_, second), *_ = sorted(values.items(), key=lambda item: item[1])
    less = 1 - least / second if second else 0.0
    return f"{name} ({worded(least)}, {less:.0%} less than the next)"
