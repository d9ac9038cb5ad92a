"""``mlless synthesize``: made-up raw data of the published sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless synthesize ml-20m ratings.csv[/cyan]

[cyan]mlless synthesize criteo clicks.tsv.gz --rows 5000000 --seed 1[/cyan]"""


def synthesize(
    kind: Annotated[
        Literal["ml-1m", "ml-10m", "ml-20m", "criteo"],
        typer.Argument(metavar="KIND", help="What it is shaped like: ml-1m, ml-10m, ml-20m or criteo."),
    ],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The file to write; packed if named .gz.")],
    rows: Annotated[
        int | None,
        typer.Option(help="Number of rows.", show_default="the published number; a million for criteo"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides every byte.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DEST.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make up raw data with a known model behind it, and say how well that model does."""
    import mlless
    from mlless.cli.console import bar, commands, console, print_json, quote, say
    from mlless.report.wording import count, metrics

    with bar("writing", shown=not json) as move:
        made = mlless.synthesize(kind, dest, rows=rows, seed=seed, overwrite=overwrite, progress=move)
    if json:
        print_json({"path": str(made.path), "kind": kind, "rows": made.rows, made.metric: made.floor})
        return
    to = console()
    size = f"{made.path.stat().st_size / 1e6:,.1f} MB"
    say(to, [("made up", f"{made.path}: {count(made.rows, 'row')} shaped like {kind}, {size}")])
    say(
        to,
        [("floor", f"{metrics({made.metric: made.floor})} with the model behind it; less cannot be learned")],
    )
    say(to, commands(f"mlless partition {quote(dest)} data/{kind}"))
