"""What an experiment came to, on a page: losses over time or money beside published points, and ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from matplotlib.axes import Axes

from mlless.planning import Experiment, Side
from mlless.report.comparison.charts import Chart, drawn, finished
from mlless.report.comparison.look import MUTED, color_of, style_of
from mlless.report.comparison.page import Section, pictures_of
from mlless.report.findings import (
    Course,
    Findings,
    Runs,
    course_of,
    loss_rows,
    published_at,
    ratio_rows,
    scaled,
)

_SIZE = (4.5, 3.1)  # inches
_SIDES: dict[Side, str] = {"published": "as published", "ours": "by our own settings"}
Courses = Mapping[str, Course]  # by contestant


def sections(experiment: Experiment, runs: Runs, found: Findings) -> Iterator[Section]:
    """Yield the page's parts: what it is about and its ratios, then a part a job."""
    yield Section(
        title=experiment.title,
        told=" ".join([" ".join(experiment.note.split()), scaled(found.scale), *found.notes]),
        head=["", *(experiment.jobs[job].title for job in found.losses)],
        rows=list(ratio_rows(found)),
        more="Why ratios are other ones than published",
        more_head=["", "why"],
        more_rows=[[ratio.title, ratio.why] for ratio in experiment.ratios if ratio.why],
    )
    for job, of in runs.items():
        courses = {name: course_of(run) for name, run in of.items()}
        yield Section(
            title=experiment.jobs[job].title,
            told=f"Trained on {found.data[job]}. Circles are published points, lines "
            "are training losses in the world.",
            pictures=pictures_of(_chart(experiment, job, courses, side) for side in _SIDES),
            head=["training loss", *(_mark(experiment, mark) for mark in found.marks)],
            rows=list(loss_rows(experiment, found, job)),
        )


def _mark(experiment: Experiment, mark: float) -> str:
    return f"${mark:g}" if experiment.axis == "dollars" else f"{mark:g} s"


def _chart(experiment: Experiment, job: str, courses: Courses, side: Side) -> Chart | None:
    if not any(experiment.sides[name] == side for name in courses):
        return None
    with drawn(_SIZE) as axes:
        draw(axes, experiment, job, courses, side)
        return finished(axes, f"{job}-{side}", f"Training loss {_SIDES[side]}")


def draw(axes: Axes, experiment: Experiment, job: str, courses: Courses, side: Side) -> None:
    """Draw the contestants of a side, and what has been published of them.

    On the side of our own settings the best of the other side stands in grey, to compare with.
    """
    names = list(experiment.labels)
    for name, course in courses.items():
        if experiment.sides[name] != side or not len(course.losses):
            continue
        number, x = names.index(name), course.over(experiment.axis)
        color, label = color_of(number), experiment.labels[name]
        axes.plot(x, course.losses, style_of(number), color=color, label=label)
        points = list(_points(experiment, job, name))
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=color, markerfacecolor="none", markersize=4)
    if side == "ours" and (best := _best(experiment, courses)):
        other, label = courses[best], experiment.labels[best]
        axes.plot(other.over(experiment.axis), other.losses, ":", color=MUTED, label=label)
    axes.set_xlim(0, experiment.marks[-1] * 1.02)
    axes.set_xlabel("dollars" if experiment.axis == "dollars" else "seconds of the world")
    axes.set_ylabel("log loss" if experiment.jobs[job].features else "RMSE")


def _points(experiment: Experiment, job: str, name: str) -> Iterator[tuple[float, float]]:
    if experiment.axis == "seconds":
        yield from experiment.jobs[job].points.get(name, [])
        return
    for mark in experiment.marks:
        if (loss := published_at(experiment, job, name, mark)) is not None:
            yield mark, loss


def _best(experiment: Experiment, courses: Courses) -> str | None:
    theirs = [name for name in courses if experiment.sides[name] == "published" and len(courses[name].losses)]
    return min(theirs, key=lambda name: float(courses[name].losses.min()), default=None)
