"""What an experiment came to: losses where they are told, and ratios, beside what has been published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from mlless.planning import Experiment, Ratio
from mlless.report.recorded import Floats, Recorded

_PARTS = 40  # of a run; a loss is the mean over one of them, for mini-batches differ
_DEVIATION = 0.15  # from where on a ratio is another one than published
_SHORT = 0.05  # of the way to a mark: so near it a run counts as having come there

Runs = Mapping[str, Mapping[str, Recorded]]  # by job and contestant


@dataclass(frozen=True)
class Course:
    """The training loss of a run, and when and for how much money the model was there that has it."""

    seconds: Floats
    dollars: Floats
    losses: Floats

    def over(self, axis: str) -> Floats:
        """Return the seconds or the dollars."""
        return self.dollars if axis == "dollars" else self.seconds

    def until(self, axis: str, mark: float) -> Course:
        """Return the course up to a time or an amount of money."""
        there = self.over(axis) <= mark
        return Course(self.seconds[there], self.dollars[there], self.losses[there])

    def at(self, axis: str, mark: float) -> float | None:
        """Return the loss at a time or for so much money; None if the run did not come there."""
        there = self.over(axis)
        if not len(there) or not there[0] <= mark <= there[-1] * (1 + _SHORT):
            return None
        return float(np.interp(mark, there, self.losses))

    def arrival(self, axis: str, loss: float) -> float | None:
        """Return the seconds or dollars to a loss; None if it was never as low."""
        below = np.flatnonzero(self.losses <= loss)
        if not len(below):
            return None
        now, there = int(below[0]), self.over(axis)
        if now == 0:
            return float(there[0])
        share = (self.losses[now - 1] - loss) / (self.losses[now - 1] - self.losses[now])
        return float(there[now - 1] + share * (there[now] - there[now - 1]))


def course_of(run: Recorded) -> Course:
    """Return the course of a run; nothing over dollars without a tariff."""
    begun, paid = run.summary.startup_seconds, 0.0
    seconds, dollars, losses, samples = [], [], [], []
    for record in run.history:
        if record.loss is not None:
            seconds.append(begun)  # the loss of a step is that of the model before it
            dollars.append(paid)
            losses.append(record.loss)
            samples.append(record.samples)
        begun, paid = record.time, paid if record.cost is None else record.cost
    if not losses:
        return Course(np.empty(0), np.empty(0), np.empty(0))
    width = max(1, len(losses) // _PARTS)
    weights, kernel = np.array(samples, float), np.ones(width)
    sums = np.convolve(np.array(losses, float) * weights, kernel)[: len(losses)]
    means = sums / np.convolve(weights, kernel)[: len(losses)]
    told = np.array([run.summary.job.on_scale(max(0.0, float(one))) for one in means])
    return Course(np.array(seconds), np.array(dollars), told)


class Beside(msgspec.Struct, frozen=True):
    """A figure of ours, and the published one; None where there is none."""

    here: float | None
    published: float | None = None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of an experiment, at a ``scale``.

    Losses are by job, contestant and mark, ratios by title and job.
    """

    title: str
    world: str
    scale: float
    axis: str
    marks: tuple[float, ...]
    losses: dict[str, dict[str, tuple[Beside, ...]]]
    ratios: dict[str, dict[str, Beside]]
    data: dict[str, str]
    notes: tuple[str, ...] = ()


def findings(
    experiment: Experiment, runs: Runs, *, scale: float, data: Mapping[str, str], notes: tuple[str, ...] = ()
) -> Findings:
    """Return what an experiment came to; ``data`` tells of each job what it has trained on."""
    courses = {job: {name: course_of(run) for name, run in of.items()} for job, of in runs.items()}
    last = experiment.marks[-1]
    seen = {
        job: {name: one.until(experiment.axis, last) for name, one in of.items()}
        for job, of in courses.items()
    }
    return Findings(
        title=experiment.title,
        world=experiment.world,
        scale=scale,
        axis=experiment.axis,
        marks=experiment.marks,
        losses={
            job: {
                name: tuple(
                    Beside(course.at(experiment.axis, mark), published_at(experiment, job, name, mark))
                    for mark in experiment.marks
                )
                for name, course in of.items()
            }
            for job, of in courses.items()
        },
        ratios={
            ratio.title: {
                job: Beside(_ratio(ratio, of), ratio.published.get(job)) for job, of in seen.items()
            }
            for ratio in experiment.ratios
        },
        data=dict(data),
        notes=notes,
    )


def published_at(experiment: Experiment, job: str, name: str, mark: float) -> float | None:
    """Return the published loss of a contestant at a mark; None where it is not known."""
    points = experiment.jobs[job].points.get(name, [])
    if experiment.axis == "dollars":
        if name not in experiment.hours:
            return None
        mark = mark / experiment.hours[name] * 3600
    seconds, losses = [[one[end] for one in points] for end in (0, 1)]
    if not points or not seconds[0] <= mark <= seconds[-1]:
        return None
    return float(np.interp(mark, seconds, losses))


def _ratio(ratio: Ratio, courses: Mapping[str, Course]) -> float | None:
    """Return a ratio of two contestants; None if one is not there, or never came as far."""
    if not {ratio.of, ratio.against} <= set(courses):
        return None
    one, other = courses[ratio.of], courses[ratio.against]
    if not len(one.losses) or not len(other.losses):
        return None
    if ratio.kind == "rate":
        rates = [float(course.dollars[-1] / course.seconds[-1]) for course in (one, other)]
        return rates[0] / rates[1] if rates[1] else None
    if ratio.kind == "progress":
        fallen = other.losses[0] - other.losses.min()
        return float((one.losses[0] - one.losses.min()) / fallen) if fallen > 0 else None
    axis = "seconds" if ratio.kind == "speed" else "dollars"
    best = int(np.argmin(other.losses))
    there, here = float(other.over(axis)[best]), one.arrival(axis, float(other.losses[best]))
    return there / here if here else None


def scaled(scale: float) -> str:
    """Return what a scale means, in words."""
    if scale == 1.0:
        return "Rows and mini-batches are of the published sizes."
    return (
        f"Rows, users, items, features and mini-batches are {scale:g} times the published ones, and so is "
        "the speed of cores and networks: a step then takes about as long as at full size."
    )


def ratio_rows(found: Findings) -> Iterator[list[str]]:
    """Yield a row a ratio: what it is here, and what has been published."""
    for title, of in found.ratios.items():
        yield [title, *(_told(one, "{:.3g}") for one in of.values())]


def loss_rows(experiment: Experiment, found: Findings, job: str) -> Iterator[list[str]]:
    """Yield a row a contestant: its loss at each mark."""
    for name, marks in found.losses[job].items():
        yield [experiment.labels[name], *(_told(one, "{:.3f}") for one in marks)]


def _told(one: Beside, form: str) -> str:
    here = "-" if one.here is None else form.format(one.here)
    if one.published is None:
        return here
    told = f"{here} (published {form.format(one.published)})"
    far = one.here is None or abs(one.here / one.published - 1) > _DEVIATION
    return f"{told} *" if far and form == "{:.3g}" else told
