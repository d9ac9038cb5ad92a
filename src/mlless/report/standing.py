"""How contestants stand that have trained on the same data, some of them several times.

What is compared is what each took to come to one value of one metric, and what whole runs took. Of several
runs the median is told, and with it the least and the most: one run on a busy machine tells little.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from mlless.billing.amount import money
from mlless.errors import UsageError
from mlless.memory import megabytes
from mlless.report.milestone import arrival
from mlless.report.recorded import Recorded, points
from mlless.report.wording import count, duration, size

NEAR = 0.01  # without a target: how near one has to come to the best of all


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one run came to; seconds and dollars ``to`` the value are None if it never came there.

    ``moved`` are the bytes published, read and fetched. ``value`` is the metric of its model.
    """

    contestant: str
    repetition: int
    run: str
    value: float | None
    seconds_to: float | None
    dollars_to: float | None
    steps_to: float | None
    seconds: float
    dollars: float | None
    cpu_seconds: float
    startup_seconds: float
    peak_memory: int | None
    moved: int
    published: int
    read: int
    fetched: int
    steps: int
    epochs: float
    workers: int
    stop_reason: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """All outcomes, the quickest contestant first, and the ``value`` of the ``metric`` that counts."""

    metric: str
    value: float
    outcomes: dict[str, tuple[Outcome, ...]]
    notes: tuple[str, ...] = ()


def standing(runs: Mapping[str, Mapping[int, Recorded]], notes: Sequence[str] = ()) -> Standing:
    """Return how contestants stand, of whose repetitions these are the runs.

    What counts is the target that all had, if it is of a held-out metric, else ``NEAR`` the best of all.
    UsageError if nothing was held out.
    """
    every = [run for repetitions in runs.values() for run in repetitions.values()]
    metric, value = every[0].summary.job.metrics[0], None
    targets = {run.target for run in every}
    if len(targets) == 1 and (target := targets.pop()) and target[0] != "train_loss":
        metric, value = target
    if value is None:
        values = [point.value for run in every for point in points(run, metric)]
        if not values:
            raise UsageError(
                "nothing is held out to compare by", cure="partition the source with --validation above 0"
            )
        value = min(values) * (1 + NEAR)
    outcomes = {
        name: tuple(_outcome(name, number, run, metric, value) for number, run in sorted(repetitions.items()))
        for name, repetitions in runs.items()
    }
    ordered = sorted(outcomes, key=lambda name: (_median(outcomes[name], "seconds_to") or 1e99, name))
    return Standing(
        metric=metric, value=value, outcomes={name: outcomes[name] for name in ordered}, notes=tuple(notes)
    )


def _outcome(name: str, number: int, run: Recorded, metric: str, value: float) -> Outcome:
    summary, there = run.summary, arrival(points(run, metric), metric, value)
    moved = summary.bytes_published, summary.bytes_read, summary.bytes_fetched
    return Outcome(
        contestant=name,
        repetition=number,
        run=run.location,
        value=summary.heldout.get(metric),
        seconds_to=there.seconds if there else None,
        dollars_to=there.dollars if there else None,
        steps_to=there.steps if there else None,
        seconds=run.seconds,
        dollars=summary.bill.total if summary.bill else None,
        cpu_seconds=summary.cpu_seconds,
        startup_seconds=summary.startup_seconds,
        peak_memory=summary.peak_memory,
        moved=sum(moved),
        published=moved[0],
        read=moved[1],
        fetched=moved[2],
        steps=summary.steps,
        epochs=summary.epochs,
        workers=max(summary.members, default=summary.job.workers),
        stop_reason=summary.stop_reason,
    )


def _values(outcomes: Sequence[Outcome], field: str) -> list[float]:
    return [value for one in outcomes if (value := getattr(one, field)) is not None]


def _median(outcomes: Sequence[Outcome], field: str) -> float | None:
    """Return the median of the runs; None unless all of them have a value."""
    values = _values(outcomes, field)
    return statistics.median(values) if values and len(values) == len(outcomes) else None


def median_run(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the run in the middle: by the time to the value if all came there, else by their whole time."""
    field = "seconds_to" if _median(outcomes, "seconds_to") is not None else "seconds"
    return sorted(outcomes, key=lambda one: getattr(one, field))[(len(outcomes) - 1) // 2]


def head(standing: Standing) -> tuple[str, ...]:
    """Return the heads of the table's columns."""
    to = f"{standing.metric} {standing.value:.4f}"
    whole = "whole run", "money", "CPU", "memory", "moved", "steps", standing.metric
    return "", "runs", f"time to {to}", f"money to {to}", *whole


def counted(standing: Standing) -> str:
    """Return what counts in a comparison."""
    return f"what counts is to come to a held-out {standing.metric} of {standing.value:.4f}"


def rows(standing: Standing) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table, a contestant each: medians, and in brackets the least and the most."""
    for name, outcomes in standing.outcomes.items():
        never = f"never, ended by {outcomes[0].stop_reason}"
        yield (
            name,
            str(len(outcomes)),
            _told(outcomes, "seconds_to", _seconds, spread=True, unless=never),
            _told(outcomes, "dollars_to", money),
            _told(outcomes, "seconds", _seconds, spread=True),
            _told(outcomes, "dollars", money),
            _told(outcomes, "cpu_seconds", _seconds, spread=True),
            _told(outcomes, "peak_memory", megabytes),
            _told(outcomes, "moved", size),
            _told(outcomes, "steps", lambda steps: count(round(steps))),
            _told(outcomes, "value", lambda value: f"{value:.4f}"),
        )


def _told(
    outcomes: Sequence[Outcome],
    field: str,
    worded: Callable[[float], str],
    *,
    spread: bool = False,
    unless: str = "-",
) -> str:
    """Return the median in words, with the spread if wanted; ``unless`` where there is no value."""
    values = _values(outcomes, field)
    if not values:
        return unless
    text = worded(statistics.median(values))
    if len(values) < len(outcomes):
        text += f", {len(values)} of {len(outcomes)} runs"
    if spread and len(values) > 1:
        text += f" ({worded(min(values))} to {worded(max(values))})"
    return text


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else duration(value)


def verdict(standing: Standing) -> Iterator[str]:
    """Yield who was the quickest and who the cheapest, as far as the runs can tell."""
    for what, field, worded in (("quickest", "seconds_to", _seconds), ("cheapest", "dollars_to", money)):
        ranked = sorted(
            (median, name)
            for name, outcomes in standing.outcomes.items()
            if (median := _median(outcomes, field)) is not None
        )
        if not ranked:
            continue
        (least, first), *others = ranked
        most = max(_values(standing.outcomes[first], field))
        close = [name for _, name in others if min(_values(standing.outcomes[name], field)) <= most]
        said = f"{what}: {first} ({worded(least)})"
        yield said + (f"; runs of {', '.join(close)} lie within its spread" if close else "")


def table_csv(standing: Standing) -> str:
    """Return all outcomes as CSV, a line a run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Outcome.__struct_fields__)
    for outcomes in standing.outcomes.values():
        writer.writerows(msgspec.structs.astuple(one) for one in outcomes)
    return out.getvalue()
