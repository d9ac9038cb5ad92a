"""``mlless partition``: raw rows to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mlless.cli.reading import Given, with_reading

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless partition ratings.csv data/ratings[/cyan]

[cyan]mlless partition clicks.svm.gz data/clicks --features 1000000 --validation 0.05[/cyan]

[cyan]mlless partition train.tsv.gz data/criteo --format criteo[/cyan]

[cyan]mlless partition visits.parquet data/visits --columns visits.toml[/cyan]

[cyan]mlless partition test.svm data/test --like data/clicks[/cyan]

[cyan]mlless partition ratings.csv s3://bucket/data/ratings[/cyan]

[cyan]mlless partition exported/ data/ratings[/cyan]

[cyan]zcat day-*.gz | mlless partition - data/clicks --format libsvm[/cyan]"""


@with_reading
def partition(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Ratings (.csv with a header, ::, tabs, Parquet) or clicks (LIBSVM, Criteo's layout, "
            "any table with --columns), also packed. Files, patterns, folders, or - (standard input).",
        ),
    ],
    dest: Annotated[
        str,
        typer.Argument(
            metavar="DEST", help="The folder for the data set, or a URL such as s3://BUCKET/PREFIX."
        ),
    ],
    reading: Given,
    format: Annotated[
        Literal["ratings", "libsvm", "criteo", "columns"] | None,
        typer.Option(help="What SOURCE holds.", show_default="found from its name and content"),
    ] = None,
    features: Annotated[
        int | None,
        typer.Option(
            help="Number of features of clicks. In tables: of features that categories are hashed into.",
            show_default="the largest index + 1; 2^18 for tables",
        ),
    ] = None,
    columns: Annotated[
        Path | None,
        typer.Option(help="A TOML file that describes the columns of a table (CSV, Parquet)."),
    ] = None,
    numeric: Annotated[
        Literal["standard", "minmax"] | None,
        typer.Option(
            help="How numeric columns are scaled: logarithm, then standardised; or min-max.",
            show_default="standard",
        ),
    ] = None,
    hash_seed: Annotated[int, typer.Option(help="Another seed hashes categories to other features.")] = 0,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Share of rows that is held out to judge models by.", show_default="0.1; 0 with --like"
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="A data set whose ids and features this one takes over: makes a test set."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the groups and the order of the rows.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DEST if it is a data set.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a data set for training from raw rows: ratings or clicks."""
    import mlless
    from mlless.cli.console import bar, commands, console, print_json, quote, say
    from mlless.report.datasets import description, facts

    with bar("reading", shown=not json) as move:
        dataset = mlless.partition(
            source,
            dest,
            format=format,
            features=features,
            columns=columns,
            numeric=numeric,
            hash_seed=hash_seed,
            validation=validation,
            like=like,
            seed=seed,
            overwrite=overwrite,
            progress=move,
            tell=lambda text: typer.echo(text, err=True),
            **reading,
        )
    if json:
        print_json(facts(dataset))
        return
    to = console()
    say(to, description(dataset))
    if like is None:
        run = f"runs/{dataset.address.rpartition('/')[2]}"
        say(to, commands(f"mlless train {quote(dest)} --out {quote(run)}"))
    else:
        say(to, commands(f"mlless evaluate RUN {quote(dest)}"))
