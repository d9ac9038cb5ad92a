"""The charts: one figure each, drawn from recorded runs.

A run keeps its colour in all of them. Lines are thinned and steps put into bins, so that a long run
makes no larger a picture than a short one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from mlless.records import StepTimes
from mlless.report.comparison.look import INK, MUTED, STYLES, color_of, style_of, styled
from mlless.report.recorded import (
    Axis,
    Floats,
    Recorded,
    Series,
    binned,
    cost_over_time,
    metric_over,
    speeds,
    thinned,
    workers_over_time,
)

_SMALL, _WIDE = (4.5, 3.1), (9.2, 3.5)  # inches
_POINTS, _BINS = 500, 120
_FEW = 40  # points of a line up to which each is marked
_STEEP = 0.05  # of a run's course: what the metric falls by before it is off the chart
_HAIR = 0.1  # of a worker
_LONGEST = 36  # characters of a name in a chart
_SEEN = 8  # steps after which a chart of decisions begins
_OVER: dict[Axis, str] = {"steps": "steps", "seconds": "time", "dollars": "money"}
# Activities and their colours; waiting, which no one wants, is grey.
_ACTIVITIES = {
    name: color_of(number)
    for name, number in zip(StepTimes.__struct_fields__, (5, 0, 6, 1, 7, 2, 3, 4), strict=True)
}


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    color: str
    style: str = "-"


@dataclass(frozen=True)
class Chart:
    """A figure, the name of its files, its title and its legend, for which a PNG is so many inches higher."""

    name: str
    title: str
    figure: Figure
    keys: tuple[Key, ...]
    legend: float


def metric_chart(runs: Sequence[Recorded], name: str, axis: Axis) -> Chart | None:
    """Return the metric of that name over an axis; None where no run has it there."""
    lines = [_metric_line(run, name, axis) for run in runs]
    seen = [line for line in lines if len(line.x)]
    if not seen:
        return None
    scale, unit = _unit(axis, max(line.x.max() for line in seen))
    with drawn(_SMALL) as axes:
        for number, line in enumerate(lines):
            if len(line.x):
                few = thinned(line, _POINTS)
                marker = "o" if len(few.x) <= _FEW else None
                axes.plot(few.x / scale, few.y, marker=marker, markersize=2.6, **_line(runs, number))
        _cut_the_steep_part(axes, [line.y for line in seen], better_above=name.endswith("AUC"))
        for target in {_target(run, name) for run in runs} - {None}:
            axes.axhline(target, color=MUTED, linewidth=0.9, linestyle=":")  # type: ignore[arg-type]
        axes.set_xlabel(unit)
        axes.set_ylabel(name)
        slug = name.lower().replace(" ", "-")
        return finished(axes, f"{slug}-over-{_OVER[axis]}", f"{name} over {_OVER[axis]}")


def _metric_line(run: Recorded, name: str, axis: Axis) -> Series:
    metric = run.metrics.get(name)
    return metric_over(run, metric, axis) if metric else Series(np.empty(0), np.empty(0))


def _target(run: Recorded, name: str) -> float | None:
    return run.target[1] if run.target and run.target[0] == run.metrics.get(name) else None


def workers_chart(runs: Sequence[Recorded]) -> Chart:
    """Return the number of workers over time."""
    lines = [workers_over_time(run) for run in runs]
    scale, unit = _unit("seconds", max(line.x[-1] for line in lines))
    with drawn(_SMALL) as axes:
        for number, line in enumerate(lines):
            # Lines that would lie on one another are set apart by a hair.
            shifted = line.y + _HAIR * ((number + 0.5) / len(runs) - 0.5)
            axes.plot(line.x / scale, shifted, drawstyle="steps-pre", **_line(runs, number))
        axes.set_ylim(0, 1.12 * max(line.y.max() for line in lines) + 0.2)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(unit)
        axes.set_ylabel("workers")
        return finished(axes, "workers", "Workers over time")


def cost_chart(runs: Sequence[Recorded]) -> Chart | None:
    """Return the bill so far over time; None where no run was metered."""
    lines = [cost_over_time(run) for run in runs]
    seen = [line for line in lines if len(line.x)]
    if not seen:
        return None
    scale, unit = _unit("seconds", max(line.x[-1] for line in seen))
    dollars, money_unit = _unit("dollars", max(line.y[-1] for line in seen))
    with drawn(_SMALL) as axes:
        for number, line in enumerate(lines):
            if len(line.x):
                few = thinned(line, _POINTS)
                axes.plot(few.x / scale, few.y / dollars, **_line(runs, number))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(unit)
        axes.set_ylabel(money_unit)
        return finished(axes, "cost", "The bill so far")


def bytes_chart(runs: Sequence[Recorded], *, read: bool) -> Chart:
    """Return what all workers together published, or read of one another, in a step."""
    with drawn(_SMALL) as axes:
        for number, run in enumerate(runs):
            sizes = [record.bytes_in if read else record.bytes_out for record in run.history]
            line = binned(_by_step(np.array(sizes) / 1e6), _BINS)
            axes.plot(line.x, line.y, **_line(runs, number))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("steps")
        axes.set_ylabel("MB a step, all workers")
        if read:
            return finished(axes, "bytes-read", "Read from peers")
        return finished(axes, "bytes-published", "Published")


def split_chart(runs: Sequence[Recorded]) -> Chart:
    """Return where the time of a mean step went, a bar a run."""
    parts = {
        name: [1e3 * getattr(run.summary.times, name) / run.summary.steps for run in runs]
        for name in _ACTIVITIES
    }
    with drawn((_WIDE[0], 1.3 + 0.34 * len(runs))) as axes:
        _bars(axes, [run.name for run in runs], parts, _ACTIVITIES)
        axes.set_xlabel("ms a step, mean over the workers")
        return finished(axes, "time-split", "Where the time of a step went")


def split_over_steps(run: Recorded, name: str) -> Chart:
    """Return where the time of each step of a run went."""
    layers = [
        binned(_by_step(np.array([1e3 * getattr(record.times, one) for record in run.history])), _BINS)
        for one in _ACTIVITIES
    ]
    x, heights = layers[0].x, np.array([layer.y for layer in layers])
    with drawn(_WIDE) as axes:
        axes.stackplot(x, heights, colors=list(_ACTIVITIES.values()), labels=list(_ACTIVITIES))
        # One step that stalled would flatten all others.
        total = heights.sum(axis=0)
        axes.set_ylim(0, min(1.05 * total.max(), 3 * float(np.median(total))) or 1.0)
        axes.set_xlim(x[0], max(x[-1], x[0] + 1))
        axes.set_xlabel("steps")
        axes.set_ylabel("ms, mean over the workers")
        return finished(axes, f"time-split-{name}", f"Each step of {run.name}")


def bill_chart(runs: Sequence[Recorded]) -> Chart | None:
    """Return what the bill is made up of, a bar a run; None where no run was metered."""
    bills = {run.name: run.summary.bill for run in runs if run.summary.bill is not None}
    if not bills:
        return None
    scale, unit = _unit("dollars", max(bill.total for bill in bills.values()))
    names = list(dict.fromkeys(item.what for bill in bills.values() for item in bill.items))
    parts = {
        name: [
            sum(item.amount for item in bill.items if item.what == name) / scale for bill in bills.values()
        ]
        for name in names
    }
    with drawn((_WIDE[0], 1.3 + 0.34 * len(bills))) as axes:
        _bars(axes, list(bills), parts, {name: color_of(number) for number, name in enumerate(names)})
        axes.set_xlabel(unit)
        return finished(axes, "bill", "What the bill is made up of")


def decisions_chart(run: Recorded, name: str) -> Chart:
    """Return the losses of a run, the curves its tuner fitted, and where workers left.

    Curves are those of the decisions to let workers go, and of the last look.
    """
    known = [(record.step + 1.0, record.loss) for record in run.history if record.loss is not None]
    steps, losses = np.array(known).reshape(-1, 2).T
    few = np.unique(np.geomspace(1, len(steps), 4 * _BINS).astype(int)) - 1
    decisions = [record.decision for record in run.decided if record.decision is not None]
    leaving = [one for one in decisions if one.action == "leave"]
    curves = [curve for one in (*leaving, *decisions[-1:]) for curve in one.curves]
    kinds = list(dict.fromkeys(curve.name for curve in curves))
    with drawn(_WIDE) as axes:
        axes.plot(steps[few], losses[few], ".", color=MUTED, markersize=2.5, label="loss of a step")
        for curve in curves:
            color = color_of(kinds.index(curve.name))
            axes.plot(curve.steps, curve.losses, color=color, linewidth=1.3, label=f"{curve.name} curve")
        for record in run.decided:
            if record.decision is not None and record.decision.action == "leave":
                # It takes effect two steps after the one at whose end it was there.
                axes.axvline(record.step + 3, color=INK, linewidth=0.9, linestyle="--", label="workers leave")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        seen = min(_SEEN, max(1, len(losses) // 2))
        axes.set_xlim(left=seen)
        late = losses[seen - 1 :]
        room = 0.05 * np.ptp(late) or 1e-3
        axes.set_ylim(late.min() - room, late.max() + room)
        axes.set_xlabel("steps, on a logarithmic scale")
        axes.set_ylabel(next(reversed(run.metrics)))
        return finished(axes, f"decisions-{name}", f"What the tuner of {run.name} saw")


def speed_chart(run: Recorded, name: str) -> Chart | None:
    """Return the speeds a tuned run had and the tuner's line through them; None if no one left."""
    seen = speeds(run)
    if len(seen) < 2:
        return None
    looks = [record.decision.numbers for record in run.decided if record.decision is not None]
    lines = [numbers for numbers in looks if "speed_base" in numbers]
    with drawn(_SMALL) as axes:
        axes.plot(list(seen), list(seen.values()), "o", color=INK, markersize=4, label="median of the steps")
        for line in lines[-1:]:
            counts = np.array([min(seen), max(seen)], float)
            speed = line["speed_base"] + line["speed_slope"] * counts
            axes.plot(counts, speed, color=color_of(0), linewidth=1.3, label="the tuner's line")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("workers")
        axes.set_ylabel("steps a second")
        return finished(axes, f"speed-{name}", f"How quick {run.name} was")


@contextmanager
def drawn(size: tuple[float, float]) -> Iterator[Axes]:
    """Give axes on a figure of so many inches, in our look."""
    with styled():
        yield Figure(figsize=size, layout="constrained").add_subplot()


def finished(axes: Axes, name: str, title: str) -> Chart:
    """Return the chart, with the title and the legend that its PNG needs."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # once a label
    axes.set_title(title)
    longest = max(map(len, handles), default=0)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.6 + 0.075 * longest))))
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=columns)
    keys = tuple(_key(label, handle) for label, handle in handles.items())
    return Chart(name, title, figure, keys, 0.17 * -(-len(handles) // columns))


def _key(label: str, handle: Line2D | PolyCollection | BarContainer) -> Key:
    if isinstance(handle, Line2D):
        style = str(handle.get_linestyle())
        return Key(label, to_hex(handle.get_color()), style if style in STYLES else ":")
    area = handle.patches[0] if isinstance(handle, BarContainer) else handle
    red, green, blue, _ = np.ravel(area.get_facecolor())
    return Key(label, to_hex((red, green, blue)))


def _line(runs: Sequence[Recorded], number: int) -> dict[str, Any]:
    """Return how the line of a run looks."""
    label = _label(runs[number].name)
    return {"color": color_of(number), "linestyle": style_of(number), "label": label}


def _label(name: str) -> str:
    """Return a name that fits, and that Matplotlib does not take for one to be hidden."""
    if len(name) > _LONGEST:
        half = _LONGEST // 2
        name = f"{name[:half]}…{name[-half:]}"
    return f" {name}" if name.startswith("_") else name


def _by_step(values: Floats) -> Series:
    return Series(np.arange(len(values), dtype=float), values)


def _bars(
    axes: Axes, names: Sequence[str], parts: Mapping[str, Sequence[float]], colors: Mapping[str, str]
) -> None:
    """Draw a bar for each name, the first at the top, with a part in each colour."""
    places = np.arange(len(names))[::-1]
    left = np.zeros(len(names))
    for part, widths in parts.items():
        axes.barh(places, widths, left=left, height=0.62, color=colors[part], label=_label(part))
        left = left + np.array(widths)
    axes.set_yticks(places, [_label(name) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)


def _cut_the_steep_part(axes: Axes, courses: Sequence[Floats], *, better_above: bool) -> None:
    """Let the chart begin where the steepest part of every course is over: what matters comes later."""
    starts = [course[min(max(1, int(_STEEP * len(course))), len(course) - 1)] for course in courses]
    ends = [course.max() if better_above else course.min() for course in courses]
    worst, best = (min(starts), max(ends)) if better_above else (max(starts), min(ends))
    room = 0.06 * abs(worst - best)
    if room > 0:
        axes.set_ylim(min(worst, best) - room, max(worst, best) + room)


def _unit(axis: Axis, most: float) -> tuple[float, str]:
    """Return what to divide by, and the name of the unit."""
    if axis == "steps":
        return 1.0, "steps"
    if axis == "seconds":
        units = ((3600.0, "hours"), (60.0, "minutes"))
        return next(((scale, unit) for scale, unit in units if most >= 10 * scale), (1.0, "seconds"))
    return (1.0, "dollars") if most >= 1 else (0.01, "cents")
