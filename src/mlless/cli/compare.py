"""``mlless compare``: systems of the field side by side, on the same data, for real or in a virtual world."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mlless.cli.completion import datasets, worlds
from mlless.cli.options import with_settings
from mlless.cli.settings import OPTIONS, Settings

if TYPE_CHECKING:
    from mlless.planning import PlanFile
    from mlless.report.recorded import Recorded
    from mlless.report.standing import Standing
    from mlless.simulation.world import World
    from mlless.turns import Told

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless compare data/ratings --workers 4 --tariff aws-lambda-x86 --out compared[/cyan]

[cyan]mlless compare data/ratings --systems mlless-isp,pywren --target rmse=0.87 --out compared[/cyan]

[cyan]mlless compare data/ratings --plan plan.toml --repetitions 5 --out compared[/cyan]

[cyan]mlless compare data/ratings --world aws-lambda --workers 24 --out compared[/cyan]

[cyan]mlless compare --plan middleware21-figure6 --data mf-ml-10m=data/ratings --out figure6[/cyan]

The same command goes on with a comparison that was stopped."""

# What makes the difference between contestants is theirs, or a plan's. Nobody but us follows them.
_THEIRS = (
    "sync", "significance", "merge", "tuner", "min_workers", "tuner_interval", "tuner_tolerance", "log_to",
)  # fmt: skip


@with_settings(*(one for name, one in OPTIONS.items() if name not in _THEIRS))
def compare(
    *,
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET",
            autocompletion=datasets,
            help="A data set made with mlless partition: a folder or URL; none with a plan that has its own.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[str, typer.Option(help="A folder or URL for runs, table and page.")],
    settings: Settings,
    systems: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Who takes part; of an experiment, which contestants.",
            show_default="all",
        ),
    ] = "",
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file of contestants: a table for each, with its system and settings. Or an "
            "experiment of the package: middleware21-figure6, middleware21-figure7.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JOB=DATASET", help="Your data for a job of an experiment, in place of made-up ones."
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            min=1e-4,
            help="The size of an experiment as a share of the published rows and mini-batches.",
            show_default="that of the plan",
        ),
    ] = None,
    world: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=worlds,
            help="Run in a virtual world: one of mlless world, or a TOML file.",
        ),
    ] = None,
    repetitions: Annotated[
        int | None,
        typer.Option(min=1, help="Runs of each, interleaved.", show_default="3, in a virtual world 1"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make all runs again.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and only it.")] = False,
) -> None:
    """Train with several systems in turns, and say which is the quickest and the cheapest.

    All run for real: on the same mini-batches, kernels, meter and prices. With --world gradients are real and
    times virtual. Without --target, what counts is to come within 1 % of the best held-out metric of all.
    --max-cost and --max-time bound each run: a budget for all systems alike.
    """
    from mlless.cli.console import console, print_json, say
    from mlless.data.dataset import open_dataset
    from mlless.errors import UsageError
    from mlless.planning import read_plan
    from mlless.report.standing import counted, verdict
    from mlless.simulation.running import check_deployment
    from mlless.simulation.world import load_world
    from mlless.turns import Plan, contestants
    from mlless.turns import compare as take_turns

    given, where = settings.deployment(), load_world(world) if world else None
    deployment = msgspec.structs.replace(given, log_to=None)
    if where is not None:
        check_deployment(deployment)
    to = console(stderr=True)
    read = read_plan(plan) if plan is not None else None
    names = [name.strip() for name in systems.split(",") if name.strip()]
    if read is not None and read.experiment is not None:
        if dataset is not None or repetitions:
            raise UsageError(
                f"{plan} is an experiment, which has its own data, and runs each contestant once",
                expected="no DATASET and no --repetitions",
                cure="name your data with --data JOB=DATASET",
            )
        _experiment(read, out, _named(data), names, scale, where, settings, overwrite, json)
        return
    if dataset is None or data or scale:
        raise UsageError(
            "--data and --scale are for experiments" if dataset else "no data to compare on",
            expected="a DATASET, or the --plan of an experiment",
        )
    named = open_dataset(dataset)
    taking, notes = contestants(settings.wishes(), named, names, plan, world=where)
    if given.log_to is not None:
        notes = [*notes, "log_to has no effect here: what came of all systems is in the table and the page"]
    say(to, [("note", note) for note in notes])
    manifest = named.manifest
    times = repetitions or (3 if where is None else 1)
    job = Plan(named.address, manifest.fingerprint, deployment, tuple(taking), times, where)

    def tell(told: Told) -> None:
        """Print what has become of a turn."""
        to.print(_line(told, times), soft_wrap=True)

    try:
        found, middle = take_turns(job, out, overwrite=overwrite, tell=tell)
    except KeyboardInterrupt as error:
        error.add_note("the runs that are done stay: the same command goes on with the others")
        raise
    written = _write(found, middle, out)
    if json:
        print_json(found)
    else:
        screen = console()
        for line in _table(found):
            screen.print(line, soft_wrap=True)
        say(screen, [("result", counted(found))])
        say(screen, [("result", line) for line in verdict(found)])
        say(screen, [("note", note) for note in found.notes])
        say(screen, [("written", place) for place in written])


def _named(data: list[str] | None) -> dict[str, str]:
    """Return the data sets that a user has named, by job."""
    from mlless.errors import UsageError

    named: dict[str, str] = {}
    for one in data or ():
        job, equals, dataset = one.partition("=")
        if not equals or not dataset:
            raise UsageError("data of no job", expected="--data JOB=DATASET", found=one)
        named[job] = dataset
    return named


def _experiment(
    plan: PlanFile,
    out: str,
    data: dict[str, str],
    only: list[str],
    scale: float | None,
    world: World | None,
    settings: Settings,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Run an experiment, and show what it came to."""
    from mlless.cli.console import console, print_json, say
    from mlless.cli.settings import TABLES
    from mlless.errors import UsageError
    from mlless.experiments import check_names, run_experiment
    from mlless.report.findings import ratio_rows, scaled
    from mlless.simulation.running import check_deployment

    deployment, to = msgspec.structs.replace(settings.deployment(), log_to=None), console(stderr=True)
    check_deployment(deployment)
    check_names(plan, data, only)
    asked = {
        name: one.value
        for name, one in settings.all.items()
        if name in TABLES["train"] and one.origin == one.option.flag
    }

    def tell(told: Told) -> None:
        """Print what has become of a turn."""
        to.print(_line(told, 1), soft_wrap=True)

    try:
        found, runs = run_experiment(
            plan, out,
            data=data, asked=asked, only=only, scale=scale, world=world, deployment=deployment,
            overwrite=overwrite, say=lambda note: say(to, [("note", note)]), tell=tell,
        )  # fmt: skip
    except KeyboardInterrupt as error:
        error.add_note("the runs that are done stay: the same command goes on with the others")
        raise
    written = [f"{out}/{plan.title}.json"]
    os.environ["MPLBACKEND"] = "agg"  # nothing is shown on a screen
    try:
        from mlless.report.comparison.experiment import sections
        from mlless.report.comparison.page import write_sections
    except UsageError as error:  # its packages are an extra
        typer.echo(f"no page: {error}", err=True)
    else:
        assert plan.experiment is not None
        parts = list(sections(plan.experiment, runs, found))
        written.insert(0, write_sections([plan.title], parts, f"{out}/{plan.title}"))
    if as_json:
        print_json(found)
        return
    screen = console()
    assert plan.experiment is not None
    titles = [plan.experiment.jobs[job].title for job in found.losses]
    for line in _aligned([["", *titles], *ratio_rows(found)]):
        screen.print(line, soft_wrap=True)
    say(screen, [("result", scaled(found.scale))])
    say(screen, [("written", place) for place in written])


def _line(told: Told, repetitions: int) -> str:
    """Return what is said of a turn when it begins, and when it is over."""
    from mlless.report.wording import count, duration

    turn, came = told.turn, told.came
    what = f"run {told.number} of {told.turns}: {turn.contestant.name}"
    what += f", repetition {turn.repetition} of {repetitions}" if repetitions > 1 else ""
    if came is None:
        return f"{what} ..."
    left = f"{count(told.left)} to go" if told.left else "that was the last"
    if isinstance(came, str):
        return f"{what}: failed: {came}; {left}"
    metric = came.summary.job.metrics[0]
    value = came.summary.heldout.get(metric)
    reached = "nothing held out" if value is None else f"{metric} {value:.4f}"
    virtual = " of virtual time" if turn.world else ""
    took = f"{duration(came.seconds)}{virtual}, {came.summary.epochs:.3g} passes over the data"
    return f"{what}: {reached} in {took}, ended by {came.summary.stop_reason}; {left}"


def _write(found: Standing, middle: list[Recorded], out: str) -> list[str]:
    """Write table and page; return where they are."""
    import msgspec

    from mlless.channels.opening import open_objects
    from mlless.errors import UsageError
    from mlless.locations import place_of
    from mlless.report.standing import counted, head, rows, table_csv, verdict

    objects = open_objects(place_of(out))
    objects.put("comparison.json", msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    objects.put("comparison.csv", table_csv(found).encode())
    written = [f"{out}/comparison.csv", f"{out}/comparison.json"]
    os.environ["MPLBACKEND"] = "agg"  # nothing is shown on a screen
    try:
        from mlless.report.comparison.page import Section, write_page
    except UsageError as error:  # its packages are an extra
        typer.echo(f"no page: {error}", err=True)
        return written
    section = Section(
        title="Who is the quickest, who the cheapest",
        told=". ".join((counted(found), *verdict(found), *found.notes)),
        head=head(found),
        rows=[*rows(found)],
    )
    return [write_page(middle, f"{out}/report", [section]), *written]


def _table(found: Standing) -> Iterator[str]:
    from mlless.report.standing import head, rows

    yield from _aligned([head(found), *rows(found)])


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, its columns below one another."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
