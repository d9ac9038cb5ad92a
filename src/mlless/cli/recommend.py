"""``mlless recommend``: the best items for users, as CSV."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mlless.cli.completion import runs

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless recommend runs/ratings --out recommendations.csv[/cyan]

[cyan]mlless recommend runs/ratings --users users.txt --number 20 --exclude data/newer[/cyan]"""


def recommend(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=runs, help="A run's folder or URL, as made by mlless train."
        ),
    ],
    users: Annotated[
        Path | None,
        typer.Option(
            help="A file with a user's id on each line, or - (standard input).",
            show_default="all users of the model",
        ),
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", help="How many items for each user.")] = 10,
    exclude: Annotated[
        str | None,
        typer.Option(
            help="Leave out what a user has rated in this data set.", show_default="the one trained on"
        ),
    ] = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Leave nothing out, not even what a user has rated.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The CSV file to write; - is standard output.", show_default="-")
    ] = None,
) -> None:
    """Recommend items (user,rank,item,prediction,score); an unknown user gets what is best for everyone.

    The score is the predicted rating before it is brought into the rating scale; it gives the order.
    """
    import numpy as np

    from mlless.cli.console import bar
    from mlless.cli.predict import check_not_read, opened, to_file
    from mlless.data.dataset import open_dataset
    from mlless.data.readers.ids import read_ids
    from mlless.errors import UsageError
    from mlless.locations import check_local
    from mlless.prediction import csv_fields, load
    from mlless.report.wording import count

    out = to_file(out)
    if out is not None:
        check_local(out)
        check_not_read(out, [str(users)] if users is not None else [])
    if exclude is not None and include_seen:
        raise UsageError("--exclude and --include-seen at once", cure="give one of them")
    predictor = load(run)
    seen = predictor.seen_in(open_dataset(exclude)) if exclude is not None else not include_seen
    blocks = predictor.all_users() if users is None else read_ids(users)
    done = unknown = 0
    with bar("recommending", shown=out is not None or not sys.stdout.isatty()) as move, opened(out) as file:
        header = "user,rank,item,prediction,score\n"
        for ids, share in blocks:
            items, scores = predictor.recommend(ids, number, exclude_seen=seen)
            ratings = predictor.within_scale(scores)
            of, rank = (~np.isnan(scores)).nonzero()
            columns = csv_fields(ids[of]), (rank + 1).tolist(), csv_fields(items[of, rank])
            values = ratings[of, rank].tolist(), scores[of, rank].tolist()
            file.write(header)
            header = ""
            file.writelines(map("{},{},{},{:.7g},{:.7g}\n".format, *columns, *values))
            file.flush()
            done += len(ids)
            unknown += int((~predictor.knows(ids)).sum())
            move(share, "recommending")
        file.write(header)
    if unknown:
        told = (
            f"{count(unknown, 'user')} of {count(done)} not in the model: they get what is best for everyone"
        )
        typer.echo(told, err=True)
    if out is not None:
        typer.echo(f"items for {count(done, 'user')} in {out}", err=True)
