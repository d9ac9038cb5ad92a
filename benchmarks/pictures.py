"""Pictures of the documentation: two panels beside each other, small, the same bytes for the same data.

    pip install '.[report]'
    python benchmarks/pictures.py compare/ratings-compared compare/clicks-compared PICTURE.svg

draws how good the model of each system was after which time, from two comparisons of ``mlless compare``: the
runs in the middle. ``patterns.py`` draws its own.

    python benchmarks/pictures.py figure6 docs/figure6.svg --plan middleware21-figure6

draws the losses of an experiment: a column a job, as published above, by our own settings below.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from mlless.locations import place_of
from mlless.planning import Side, read_plan
from mlless.report.comparison.experiment import draw
from mlless.report.comparison.look import PALETTE, RULES, STYLES
from mlless.report.findings import course_of
from mlless.report.history import read_history, read_summary
from mlless.report.recorded import Recorded, points
from mlless.report.standing import Standing, median_run
from mlless.turns import SYSTEMS

__all__ = ["PALETTE", "panels", "save"]
ROOM = 0.1  # how much worse than what counts a model may be and still be on the picture
SAME = {"svg.fonttype": "none", "svg.hashsalt": "mlless"}


def panels(titles: list[str], height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel a title, so many inches high."""
    with mpl.rc_context({**RULES, **SAME}):
        figure = Figure(figsize=(4.8 * len(titles), height), layout="constrained")
        axes = figure.subplots(1, len(titles), squeeze=False)[0]
        for axis, title in zip(axes, titles, strict=True):
            axis.set_title(title)
    return figure, list(axes)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, without a date."""
    with mpl.rc_context({**RULES, **SAME}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def course(axis: Axes, comparison: Path) -> None:
    """Draw the held-out metric of each contestant over time, as far as it is near to what counts."""
    found = msgspec.json.decode((comparison / "comparison.json").read_bytes(), type=Standing)
    most, lowest = found.value * (1 + ROOM), found.value
    for name, outcomes in found.outcomes.items():
        number = [*SYSTEMS, name].index(name)  # a system looks the same in all panels
        place = place_of(comparison / "runs" / f"{name}-{median_run(outcomes).repetition}")
        run = Recorded(name, place.address, read_summary(place), read_history(place))
        line = [(one.seconds, one.value) for one in points(run, found.metric) if one.seconds > 0]
        first = max(0, next((n for n, (_, value) in enumerate(line) if value < most), len(line)) - 1)
        style = STYLES[number // len(PALETTE) % len(STYLES)]
        axis.plot(*zip(*line[first:], strict=True), style, color=PALETTE[number % len(PALETTE)], label=name)
        lowest = min(lowest, *(value for _, value in line))
    axis.axhline(found.value, color="k", linewidth=0.6)
    axis.set(
        xscale="log", xlabel="seconds", ylabel=found.metric, ylim=(lowest - found.value * ROOM / 20, most)
    )
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.legend(fontsize=6.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def experiment(folder: Path, name: str) -> Figure:
    """Return the figure of an experiment, of which these are the runs."""
    plan = read_plan(name)
    assert plan.experiment is not None
    jobs = {job: work for job, work in plan.experiment.jobs.items() if (folder / job / "runs").is_dir()}
    with mpl.rc_context({**RULES, **SAME}):
        figure = Figure(figsize=(3.6 * len(jobs), 7.0), layout="constrained")
        rows = figure.subplots(2, len(jobs), squeeze=False)
        for column, (job, work) in enumerate(jobs.items()):
            places = {one: place_of(folder / job / "runs" / f"{one}-1") for one in plan.tables}
            courses = {
                one: course_of(Recorded(one, place.address, read_summary(place), read_history(place)))
                for one, place in places.items()
                if (folder / job / "runs" / f"{one}-1" / "summary.json").exists()
            }
            sides: tuple[Side, ...] = ("published", "ours")
            for side, axes in zip(sides, rows[:, column], strict=True):
                draw(axes, plan.experiment, job, courses, side)
                axes.set_title(work.title if side == "published" else "")
        for row in rows:
            found = [axes.get_legend_handles_labels() for axes in row]
            lines = {
                label: line for lines, labels in found for line, label in zip(lines, labels, strict=True)
            }
            row[-1].legend(lines.values(), lines.keys(), fontsize=6.5, loc="upper right", frameon=False)
    return figure


def main() -> None:
    """Draw two comparisons, or an experiment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparisons", type=Path, nargs="+", help="two comparisons, or one experiment")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--plan", help="that of the experiment")
    asked = parser.parse_args()
    if asked.plan:
        save(experiment(asked.comparisons[0], asked.plan), asked.picture)
        return
    figure, axes = panels(["factorisation", "logistic regression"], height=4.4)
    for axis, comparison in zip(axes, asked.comparisons, strict=True):
        course(axis, comparison)
    save(figure, asked.picture)


if __name__ == "__main__":
    main()
