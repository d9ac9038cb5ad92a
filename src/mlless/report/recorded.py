"""A run as it was recorded, and the series that charts are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlless.errors import DatasetError, UsageError
from mlless.locations import Location, Place, place_of
from mlless.records import StepRecord, Summary
from mlless.report.history import HISTORY, is_finished, read_history, read_summary, readable

Floats = NDArray[np.float64]
_SPELT = {"rmse": "RMSE", "log_loss": "log loss", "auc": "AUC"}
Axis = Literal["steps", "seconds", "dollars"]


@dataclass(frozen=True)
class Recorded:
    """A run that has come to its end, under a name that tells it from the others."""

    name: str
    location: str
    summary: Summary
    history: Sequence[StepRecord]

    @property
    def metrics(self) -> dict[str, str]:
        """Its metrics by what they are called: held-out ones, the first picks the model, and the loss."""
        job = self.summary.job
        heldout = {f"Held-out {_SPELT[metric]}": metric for metric in job.metrics}
        return {**heldout, f"Training {_SPELT[job.metrics[0]]}": "train_loss"}

    @property
    def target(self) -> tuple[str, float] | None:
        """The metric that it was to come to, and the value on the scale of its points; None without one."""
        job = self.summary.job
        aim = job.stop.target
        if aim is None:
            return None
        return aim.metric, job.on_scale(aim.value) if aim.metric == "train_loss" else aim.value

    @property
    def seconds(self) -> float:
        """How long it took, the ending included."""
        return self.summary.seconds or self.history[-1].time

    @property
    def decided(self) -> list[StepRecord]:
        """The steps at which a decision of the auto-tuner came about."""
        return [record for record in self.history if record.decision is not None]


@dataclass(frozen=True)
class Point:
    """A value of a metric, and what had been done, had gone by and was due when it was known."""

    value: float
    steps: float
    seconds: float
    dollars: float | None


@dataclass(frozen=True)
class Series:
    """Points of a line: ``y`` over ``x``."""

    x: Floats
    y: Floats


def read_runs(locations: Iterable[Location]) -> list[Recorded]:
    """Return runs from their files.

    Raises UsageError for the same run twice or one that has not come to its end, DatasetError for a place
    without a run and for a file that is damaged.
    """
    places = [place_of(location) for location in locations]
    addresses = [place.address for place in places]
    if len(set(addresses)) < len(addresses):
        raise UsageError("a run is named twice", found=", ".join(addresses))
    return [_read(place, name) for place, name in zip(places, _names(addresses), strict=True)]


def _read(place: Place, name: str) -> Recorded:
    where = place.address
    if not is_finished(place):
        raise UsageError("this run is under way, or has failed", where=where)
    with readable(place):
        recorded = Recorded(name, where, read_summary(place), read_history(place))
    if not recorded.history:
        raise DatasetError("the run's history is empty", where=f"{where}/{HISTORY}", cure="train again")
    return recorded


def _names(places: list[str]) -> list[str]:
    """Return for each place as many of its last parts as tell it from the others."""
    parts = [place.encode(errors="replace").decode().split("/") for place in places]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return places


def points(run: Recorded, metric: str) -> list[Point]:
    """Return every value of the smoothed training loss, or of a held-out metric; NaN are left out.

    The last model is evaluated when no step is left to record it, so its value comes from the summary.
    """
    found = [
        Point(value, record.step, record.time, record.cost)
        for record in run.history
        if (value := _value(run, record, metric)) is not None and np.isfinite(value)
    ]
    summary, last = run.summary, run.history[-1]
    if metric in summary.heldout and not summary.restored:
        dollars = last.cost if summary.bill is None else summary.bill.total
        found.append(Point(summary.heldout[metric], summary.model_step, run.seconds, dollars))
    return found


def _value(run: Recorded, record: StepRecord, metric: str) -> float | None:
    if metric != "train_loss":
        return (record.heldout or {}).get(metric)
    return None if record.train_loss is None else run.summary.job.on_scale(record.train_loss)


def metric_over(run: Recorded, metric: str, axis: Axis) -> Series:
    """Return a metric over an axis; nothing over dollars without a tariff."""
    known = [(getattr(point, axis), point.value) for point in points(run, metric)]
    return _series([(x, y) for x, y in known if x is not None])


def workers_over_time(run: Recorded) -> Series:
    """Return how many workers took part, as a line that changes when a step begins."""
    first = (0.0, float(run.history[0].workers))
    return _series([first, *((record.time, float(record.workers)) for record in run.history)])


def cost_over_time(run: Recorded) -> Series:
    """Return the bill so far over time, up to the last one; nothing without a tariff."""
    known = [(record.time, record.cost) for record in run.history if record.cost is not None]
    bill = run.summary.bill
    return _series(known if bill is None else [*known, (run.seconds, bill.total)])


def speeds(run: Recorded) -> dict[int, float]:
    """Return the steps a second by the number of workers: the median, evaluations left out."""
    seconds: dict[int, list[float]] = {}
    for before, record in zip(run.history, run.history[1:], strict=False):
        if before.workers == record.workers and record.heldout is None and record.time > before.time:
            seconds.setdefault(record.workers, []).append(record.time - before.time)
    return {workers: 1 / float(np.median(taken)) for workers, taken in sorted(seconds.items())}


def thinned(series: Series, most: int) -> Series:
    """Return at most about ``most`` points of a line, the first and the last among them."""
    if len(series.x) <= most:
        return series
    kept = np.unique(np.linspace(0, len(series.x) - 1, most).astype(int))
    return Series(series.x[kept], series.y[kept])


def binned(series: Series, most: int) -> Series:
    """Return the means over at most ``most`` bins of as many points each."""
    groups = np.array_split(np.arange(len(series.x)), min(most, len(series.x)))
    return Series(
        np.array([series.x[group].mean() for group in groups]),
        np.array([series.y[group].mean() for group in groups]),
    )


def _series(pairs: Sequence[tuple[float, float]]) -> Series:
    array = np.array(pairs, float).reshape(-1, 2)
    return Series(array[:, 0], array[:, 1])
