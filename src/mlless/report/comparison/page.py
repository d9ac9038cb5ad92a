"""Puts charts and numbers together to a page, and writes it with its pictures.

The page is one file: no script, no font, no picture and no style is fetched from anywhere, and it says so
to the browser. Every chart lies beside it as a PNG.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
import msgspec

import mlless
from mlless.autotuner.decision import Decision
from mlless.billing.amount import money
from mlless.billing.meter import Item
from mlless.channels.opening import open_objects
from mlless.channels.ports import ObjectStore
from mlless.errors import UsageError
from mlless.locations import Directory, Location, place_of
from mlless.memory import megabytes
from mlless.report.account import why_ended
from mlless.report.comparison import charts, look
from mlless.report.comparison.charts import Chart, Key
from mlless.report.milestone import Milestone, milestone_of, verdict
from mlless.report.recorded import Recorded, read_runs
from mlless.report.wording import count, duration, metrics, size

PAGE = "index.html"
_FORECAST = {
    "economy": "What it expects still to be paid is for functions, servers and traffic; requests, of which "
    "any number of workers makes as many, are left out.",
    "published": "It compares the losses that both curves expect ten seconds ahead.",
}
_MARK = '<meta name="generator" content="mlless report">'
_PICTURE = re.compile(r'<a href="([a-z0-9-]+\.png)">PNG</a></figcaption>')
Places = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Picture:
    """A chart as it stands on the page, and as a file beside it."""

    chart: Chart
    file: str
    png: bytes
    svg: str

    @property
    def wide(self) -> bool:
        """Whether it takes a row of the page by itself."""
        width, height = self.chart.figure.get_size_inches()
        return bool(width > 2 * height)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: what is told, pictures, a table, and a longer one to be opened."""

    title: str
    told: str = ""
    pictures: Sequence[Picture] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    more: str = ""
    more_head: Sequence[str] = ()
    more_rows: Sequence[Sequence[str]] = ()

    @property
    def keys(self) -> Sequence[Key]:
        """The legend that all its pictures have in common; empty where each has its own."""
        legends = {picture.chart.keys for picture in self.pictures}
        return legends.pop() if len(legends) == 1 else ()


def write_report(runs: Places, out: Location = "report") -> str:
    """Draw runs on one page, compare them, and return where the page is.

    A PNG of each chart lies beside the page. A report that is there is replaced.

    Parameters
    ----------
    runs : run or list of runs
        What `mlless.train` has returned, or folders and URLs of runs.
    out : str or path, default "report"
        The folder or URL for the page.

    Raises
    ------
    UsageError
        A run has not come to its end, there are too many runs to tell apart, or something else is in the
        report's place.
    DatasetError
        There is no run.
    """
    places = [os.fspath(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    if not 1 <= len(places) <= look.MOST:
        raise UsageError("number of runs", expected=f"1 to {look.MOST}", found=str(len(places)))
    return write_page(read_runs(places), out)


def write_page(recorded: Sequence[Recorded], out: Location, first: Sequence[Section] = ()) -> str:
    """Write the page of runs that have been read, with these sections ``first``; see ``write_report``."""
    return write_sections([run.name for run in recorded], [*first, *_sections(recorded)], out)


def write_sections(names: Sequence[str], sections: Sequence[Section], out: Location) -> str:
    """Write a page of sections, which tell of what has these names; return where it is."""
    place = place_of(out)
    if isinstance(place, Directory) and place.path.is_file():
        raise UsageError("a file is in the report's place", where=str(place), cure="choose another --out")
    objects = open_objects(place)
    former = _former(objects, str(out))
    pictures = [picture for section in sections for picture in section.pictures]
    objects.put(PAGE, _page(names, sections).encode())  # first: it is whole without its pictures
    for picture in pictures:
        objects.put(picture.file, picture.png)
    objects.delete(former - {picture.file for picture in pictures})
    return f"{out}/{PAGE}"


def _former(objects: ObjectStore, out: str) -> set[str]:
    """Return the pictures of the report that is there; UsageError if it is something else."""
    present = objects.names()
    if not present:
        return set()
    page = objects.get(PAGE).decode(errors="replace") if PAGE in present else ""
    if _MARK not in page:
        raise UsageError("something else is in the report's place", where=out, cure="choose another --out")
    return set(_PICTURE.findall(page)) & present


def _page(names: Sequence[str], sections: Sequence[Section]) -> str:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals |= {"variable": look.variable}
    text = resources.files("mlless.report.comparison").joinpath("page.html.jinja").read_text("utf-8")
    return environment.from_string(text).render(
        version=mlless.__version__,
        names=names,
        sections=sections,
        light=" ".join(look.theme(dark=False)),
        dark=" ".join(look.theme(dark=True)),
    )


def _sections(runs: Sequence[Recorded]) -> Iterator[Section]:
    milestone = milestone_of(runs)
    yield Section(
        title="At a glance",
        told=verdict(runs, milestone),
        head=["", *(run.name for run in runs)],
        rows=list(_glance(runs, milestone)),
    )
    for name in dict.fromkeys(name for run in runs for name in reversed(run.metrics)):
        found = [charts.metric_chart(runs, name, axis) for axis in ("steps", "seconds", "dollars")]
        if pictures := pictures_of(found):
            yield Section(
                title=name,
                told="The steepest part at the start is cut off. A target is a dotted line.",
                pictures=pictures,
            )
    yield Section(
        title="Workers and money",
        pictures=pictures_of([charts.workers_chart(runs), charts.cost_chart(runs)]),
    )
    for number, run in enumerate(runs):
        if run.decided:
            yield _tuning(run, str(number + 1))
    splits = [charts.split_over_steps(run, str(number + 1)) for number, run in enumerate(runs)]
    yield Section(title="Time", pictures=pictures_of([charts.split_chart(runs), *splits]))
    traffic = [charts.bytes_chart(runs, read=False), charts.bytes_chart(runs, read=True)]
    yield Section(title="Bytes", pictures=pictures_of(traffic))
    if bill := charts.bill_chart(runs):
        yield Section(
            title="Bill",
            told="By the tariff that each run names, whether or not it ran there.",
            pictures=pictures_of([bill]),
            head=["", *(run.name for run in runs)],
            rows=list(_bill(runs)),
        )
    yield _settings(runs)


def pictures_of(drawn: Iterable[Chart | None]) -> list[Picture]:
    """Return charts as pictures, without those that there are not."""
    return [_picture(chart) for chart in drawn if chart is not None]


def _picture(chart: Chart) -> Picture:
    png = look.png(chart.figure, chart.legend)  # first, for the SVG goes without a legend
    return Picture(chart, f"{chart.name}.png", png, look.svg(chart.figure, chart.name))


def _glance(runs: Sequence[Recorded], milestone: Milestone | None) -> Iterator[list[str]]:
    yield ["result", *(metrics(run.summary.heldout) or "-" for run in runs)]
    if milestone and len(runs) > 1:
        points = [milestone.arrivals[run.name] for run in runs]
        to = f"to {milestone.metric} {milestone.level:.4f}:"
        yield [f"{to} steps", *(count(round(point.steps)) for point in points)]
        yield [f"{to} time", *_against([point.seconds for point in points], duration)]
        yield [f"{to} money", *_against([point.dollars for point in points], money)]
    yield ["whole run: time", *_against([run.seconds for run in runs], duration)]
    bills = [run.summary.bill for run in runs]
    yield ["whole run: money", *_against([bill.total if bill else None for bill in bills], money)]
    yield ["workers", *(_course(run) for run in runs)]
    yield ["memory of a worker", *_against([run.summary.peak_memory for run in runs], megabytes)]
    yield ["published", *_against([run.summary.bytes_published for run in runs], size)]
    yield ["ended", *(why_ended(run.summary) for run in runs)]


def _against(values: Sequence[float | None], worded: Callable[[float], str]) -> Iterator[str]:
    """Yield values in words, all but the first also as multiples of it."""
    first = values[0]
    for number, value in enumerate(values):
        if value is None:
            yield "-"
        elif number and first:
            yield f"{worded(value)} (× {value / first:.2f})"
        else:
            yield worded(value)


def _course(run: Recorded) -> str:
    counts = list(dict.fromkeys(record.workers for record in run.history))
    return " → ".join(map(str, counts))


def _tuning(run: Recorded, name: str) -> Section:
    looks = [record.decision for record in run.decided if record.decision]
    leaving = [one for one in looks if one.action == "leave"]
    reasons = Counter(one.why for one in looks if one.action == "stay")
    stayed = "; ".join(f"{why} ({count(times, 'time')})" for why, times in reasons.most_common(4))
    return Section(
        title=f"What the tuner of {run.name} did",
        told=f"The rule {run.summary.job.scaling.policy} looked {count(len(looks), 'time')}. "
        + (f"All stayed most of the time: {stayed}. " if stayed else "")
        + _FORECAST.get(run.summary.job.scaling.policy, ""),
        pictures=pictures_of([charts.decisions_chart(run, name), charts.speed_chart(run, name)]),
        head=["step", "who left", "why", "forecast"],
        rows=[[count(one.step), _who(one), one.why, _forecast(one)] for one in leaving],
        more=f"All {count(len(looks), 'look')}",
        more_head=["step", "came to", "why", "numbers"],
        more_rows=[[count(one.step), one.action, one.why, _numbers(one)] for one in looks],
    )


def _who(decision: Decision) -> str:
    return ", ".join(map(str, decision.workers)) or "nobody"


def _forecast(decision: Decision) -> str:
    """Return what a decision expected, in words."""
    numbers = decision.numbers
    if "dollars" in numbers:
        with_fewer = f"{money(numbers['dollars'])} and {duration(numbers['seconds'])} to go"
        if_all = f"{money(numbers['dollars_if_all_stay'])} and {duration(numbers['seconds_if_all_stay'])}"
        return f"{with_fewer}, {if_all} if all stay"
    if "excess" in numbers:
        return f"loss {numbers['projected']:.4g}, {numbers['reference']:.4g} on its former course"
    return "-"


def _numbers(decision: Decision) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in decision.numbers.items())


def _bill(runs: Sequence[Recorded]) -> Iterator[list[str]]:
    bills = [run.summary.bill for run in runs]
    yield ["tariff", *(bill.tariff if bill else "none" for bill in bills)]
    items = [{item.what: item for item in bill.items} if bill else {} for bill in bills]
    for what in dict.fromkeys(name for named in items for name in named):
        yield [what, *(_itemised(named.get(what)) for named in items)]
    yield ["total", *_against([bill.total if bill else None for bill in bills], money)]


def _itemised(item: Item | None) -> str:
    return f"{money(item.amount)} ({f'{item.quantity:,.4g} {item.unit}'.rstrip()})" if item else "-"


def _settings(runs: Sequence[Recorded]) -> Section:
    """Return the settings in which runs differ, and all of them to be opened."""
    jobs = [_flat(msgspec.to_builtins(run.summary.job)) for run in runs]
    rows = [
        [name, *(job.get(name, "-") for job in jobs)]
        for name in dict.fromkeys(n for job in jobs for n in job)
    ]
    rows.append(["release", *(run.summary.version for run in runs)])
    rows.append(["kernels", *(run.summary.kernels for run in runs)])
    rows.append(["run", *(run.location for run in runs)])
    head = ["", *(run.name for run in runs)]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return Section(
        title="Settings",
        told="What is not the same for all:" if differing else "",
        head=head,
        rows=differing,
        more=f"All {count(len(rows), 'setting')}",
        more_head=head,
        more_rows=rows,
    )


def _flat(value: object, name: str = "") -> dict[str, str]:
    """Return nested settings as dotted names with their values in words; prices are the bill's matter."""
    if not isinstance(value, dict):
        return {name: "none" if value is None else str(value)}
    flat: dict[str, str] = {}
    for part, inner in value.items():
        if part != "tariff":
            flat |= _flat(inner, f"{name}.{part}" if name else part)
    return flat
