"""``mlless evaluate``: how good a model is on a data set."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mlless.cli.completion import datasets, runs
from mlless.cli.reading import Given, with_reading

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless evaluate runs/ratings data/ratings[/cyan]

[cyan]mlless evaluate runs/clicks data/test --json[/cyan]

[cyan]mlless evaluate runs/criteo test.tsv.gz[/cyan]"""


@with_reading
def evaluate(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=runs, help="A run's folder or URL, as made by mlless train."
        ),
    ],
    dataset: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET...",
            autocompletion=datasets,
            help="A data set, or raw sources as mlless partition takes them.",
        ),
    ],
    reading: Given,
    part: Annotated[
        Literal["all", "train", "validation"] | None,
        typer.Option(
            help="Which rows.", show_default="validation of the data set trained on; all of any other"
        ),
    ] = None,
    format: Annotated[
        Literal["ratings", "libsvm", "criteo", "columns"] | None,
        typer.Option(help="What raw sources hold.", show_default="as for mlless predict"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score a trained model: RMSE of ratings, or log loss and AUC of clicks."""
    from mlless.cli.console import console, print_json, say
    from mlless.data.readers.finding import together
    from mlless.errors import UsageError
    from mlless.prediction import as_dataset, load
    from mlless.report.wording import count, metrics, not_known

    predictor = load(run)
    chosen = "all"
    data = as_dataset(dataset)
    if data is None:
        if part not in (None, "all"):
            raise UsageError("raw rows are not in parts", where=together(dataset), found=f"--part {part}")
        result = predictor.evaluate_raw(dataset, format=format, **reading)
    else:
        chosen = part or predictor.natural_part(data)
        result = predictor.evaluate(data, chosen)
    if json:
        print_json({**result, "part": chosen})
        return
    rows = int(result.pop("rows"))
    if skipped := int(result.pop("skipped", 0)):
        typer.echo(f"left out {count(skipped, 'malformed line')}", err=True)
    if unlabelled := int(result.pop("unlabelled", 0)):
        typer.echo(f"left out {count(unlabelled, 'row')} without a rating or label", err=True)
    if unknown := int(result.pop("unknown")):
        typer.echo(not_known(predictor.kind, unknown), err=True)
    which = "all" if chosen == "all" else f"the {chosen} part"
    say(
        console(),
        [("result", metrics(result)), ("on", f"{count(rows, 'row')}: {which} of {together(dataset)}")],
    )
