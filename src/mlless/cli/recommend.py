"""``mlless recommend``: the best items for users, as CSV."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless recommend runs/ratings --exclude data/ratings --out recommendations.csv[/cyan]

[cyan]mlless recommend runs/ratings --users users.txt --number 20[/cyan]"""


def recommend(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder or URL, as made by mlless train.")
    ],
    users: Annotated[
        Path | None,
        typer.Option(help="A file with a user's id on each line.", show_default="all users of the model"),
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", help="How many items for each user.")] = 10,
    exclude: Annotated[
        str | None, typer.Option(help="A data set: what a user has rated there is left out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The CSV file to write.", show_default="standard output")
    ] = None,
) -> None:
    """Recommend items (user,rank,item,prediction); an unknown user gets what is best for everyone."""
    from mlless.cli.console import bar
    from mlless.cli.predict import opened
    from mlless.data.dataset import open_dataset
    from mlless.data.readers.ids import read_ids
    from mlless.locations import check_local
    from mlless.prediction import load
    from mlless.report.wording import count

    if out is not None:
        check_local(out)
    predictor = load(run)
    seen = predictor.seen_in(open_dataset(exclude)) if exclude is not None else None
    blocks = predictor.all_users() if users is None else read_ids(users)
    done = 0
    with bar("recommending", shown=out is not None or not sys.stdout.isatty()) as move, opened(out) as file:
        file.write("user,rank,item,prediction\n")
        for ids, share in blocks:
            items, ratings = predictor.recommend(ids, number, seen=seen)
            for user, best, values in zip(ids.tolist(), items.tolist(), ratings.tolist(), strict=True):
                for rank, (item, value) in enumerate(zip(best, values, strict=True), 1):
                    if item >= 0:
                        file.write(f"{user},{rank},{item},{value:.7g}\n")
            file.flush()
            done += len(ids)
            move(share, "recommending")
    if out is not None:
        typer.echo(f"items for {count(done, 'user')} in {out}", err=True)
