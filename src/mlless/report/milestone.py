"""What runs are compared by: where each first came to a value of a metric that all of them came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlless.billing.amount import money
from mlless.report.recorded import Point, Recorded, points
from mlless.report.wording import duration

_TIE = 0.02  # a lead that says nothing


@dataclass(frozen=True)
class Milestone:
    """A value of a metric, and where each run first came to it, by name."""

    metric: str
    level: float
    arrivals: dict[str, Point]


def milestone_of(runs: Sequence[Recorded]) -> Milestone | None:
    """Return the target that all runs had and met, or else the best that all of them came to.

    It is of the first metric that all of them have, held-out ones first. None where there is none, or where
    they were trained on different data.
    """
    if len({run.summary.job.fingerprint for run in runs}) > 1:
        return None
    courses = {name: [points(run, metric) for run in runs] for name, metric in runs[0].metrics.items()}
    common = [name for name in courses if all(name in run.metrics for run in runs) and all(courses[name])]
    (target, *different) = {run.target for run in runs}
    aimed = [name for name in common if target and not different and runs[0].metrics[name] == target[0]]
    for name in (*aimed, *common):
        metric = runs[0].metrics[name]
        sign = -1.0 if metric == "auc" else 1.0  # so that less is better
        level = max(min(sign * point.value for point in course) for course in courses[name])
        if target and name in aimed:
            level = max(level, sign * target[1])
        arrivals = [arrival(course, metric, sign * level) for course in courses[name]]
        spelt = f"train {runs[0].summary.job.metrics[0]}" if metric == "train_loss" else metric
        return Milestone(
            spelt, sign * level, {run.name: at for run, at in zip(runs, arrivals, strict=True) if at}
        )
    return None


def arrival(course: Sequence[Point], metric: str, wanted: float) -> Point | None:
    """Return where a course first reaches a value of the metric, None if it never does.

    Between two evaluations a line is drawn. Otherwise a course that gets there a little sooner would lead by
    the whole distance between two evaluations.
    """
    sign = -1.0 if metric == "auc" else 1.0  # so that less is better
    level = sign * wanted
    index = next((index for index, point in enumerate(course) if sign * point.value <= level), None)
    if index is None:
        return None
    here = course[index]
    if index == 0:
        return here
    before = course[index - 1]
    share = (sign * before.value - level) / (sign * (before.value - here.value))

    def between(then: float, now: float) -> float:
        """Return the value at that share of the way."""
        return then + share * (now - then)

    dollars = None
    if before.dollars is not None and here.dollars is not None:
        dollars = between(before.dollars, here.dollars)
    seconds = between(before.seconds, here.seconds)
    return Point(sign * level, between(before.steps, here.steps), seconds, dollars)


def verdict(runs: Sequence[Recorded], milestone: Milestone | None) -> str:
    """Return in a few sentences which run came to the milestone the quickest, and which the cheapest."""
    if milestone is None:
        return "These runs are not to be compared: they have no metric on the same rows in common."
    what = f"{milestone.metric} {milestone.level:.4f}"
    seconds = {name: point.seconds for name, point in milestone.arrivals.items()}
    dollars = {name: point.dollars for name, point in milestone.arrivals.items() if point.dollars is not None}
    if len(seconds) == 1:
        (name,) = seconds
        cost = f", for {money(dollars[name])}" if dollars else ""
        return f"Came to {what} in {duration(seconds[name])}{cost}."
    told = [f"All came to {what}.", _leader("quickest", seconds, duration)]
    if len(dollars) == len(seconds):
        told.append(_leader("cheapest", dollars, money))
        # By name: who needs no servers has a tariff without them.
        if len({run.summary.job.tariff and run.summary.job.tariff.name for run in runs}) > 1:
            told.append("They are priced by different tariffs.")
    return " ".join(told)


def _leader(what: str, values: Mapping[str, float], worded: Callable[[float], str]) -> str:
    (name, least), (_, second), *_ = sorted(values.items(), key=lambda item: item[1])
    less = 1 - least / second if second else 0.0
    if less < _TIE:
        close = [name for name, value in values.items() if value * (1 - _TIE) <= least]
        return f"Equally the {what} were {' and '.join(close)} ({worded(least)})."
    return f"The {what} was {name} ({worded(least)}, {less:.0%} less than the next)."
