"""``mlless predict``: predictions for the rows of a file, as CSV."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

from mlless.cli.completion import runs
from mlless.cli.reading import Given, with_reading

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless predict runs/ratings pairs.csv --out predictions.csv[/cyan]

[cyan]mlless predict runs/clicks test.svm | head[/cyan]"""


@with_reading
def predict(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=runs, help="A run's folder or URL, as made by mlless train."
        ),
    ],
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Raw sources, which need no ratings or labels, or a data set.",
        ),
    ],
    reading: Given,
    out: Annotated[
        Path | None, typer.Option(help="The CSV file to write; - is standard output.", show_default="-")
    ] = None,
    format: Annotated[
        Literal["ratings", "libsvm", "criteo", "columns"] | None,
        typer.Option(help="What SOURCE holds.", show_default="as the model's, or found from its content"),
    ] = None,
) -> None:
    """Predict ratings (user,item,prediction) or probabilities of a click (row,prediction)."""
    from mlless.cli.console import bar
    from mlless.locations import check_local
    from mlless.prediction import load
    from mlless.report.wording import count, not_known

    out = to_file(out)
    if out is not None:
        check_local(out)
        check_not_read(out, source)
    predictor = load(run)
    runs = predictor.predict(source, format=format, **reading)
    rows = skipped = unknown = 0
    with bar("predicting", shown=out is not None or not sys.stdout.isatty()) as move, opened(out) as file:
        header = ",".join(predictor.columns) + "\n"  # it comes with the first rows, or not at all
        for one in runs:
            file.write(header + one.csv())
            file.flush()
            header = ""
            rows, skipped = rows + len(one.values), skipped + one.skipped
            unknown += one.unknown
            move(one.done, "predicting" if one.done is not None else f"predicting, {rows:,} rows")
        file.write(header)
    if skipped:
        typer.echo(f"left out {count(skipped, 'malformed line')}", err=True)
    if unknown:
        typer.echo(not_known(predictor.kind, unknown), err=True)
    if out is not None:
        typer.echo(f"{count(rows, 'prediction')} in {out}", err=True)


def to_file(out: Path | None) -> Path | None:
    """Return the file to write to, None for standard output."""
    return None if out == Path("-") else out


def check_not_read(out: Path, sources: Sequence[str]) -> None:
    """Raise UsageError if the file ``out`` is one of the ``sources``, or a file of one of them."""
    from mlless.errors import UsageError
    from mlless.locations import scheme_of

    here = {out.resolve(), *out.resolve().parents}
    for given in sources if out.is_file() else ():
        found = [given] if Path(given).exists() else [] if scheme_of(given) else glob(given, recursive=True)
        if here & {Path(path).resolve() for path in found}:
            cure = "choose another --out"
            raise UsageError("a file that is read would be replaced", where=str(out), cure=cure)


@contextmanager
def opened(out: Path | None) -> Iterator[TextIO]:
    """Give a file to write to, which is there under its name only once all is written."""
    from mlless.data.staging import writing

    if out is None:
        yield sys.stdout
        return
    with writing(out):
        if out.exists() and not out.is_file():  # a device or a pipe
            with out.open("w", newline="\n") as file:
                yield file
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.part-{os.getpid()}")
        try:
            with part.open("w", newline="\n") as file:
                yield file
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
