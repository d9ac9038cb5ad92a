"""``mlless fetch``: published ratings from their publisher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless fetch ml-latest-small[/cyan]

[cyan]mlless fetch ml-20m data/raw/ml-20m[/cyan]"""


def fetch(
    name: Annotated[
        Literal["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-latest-small"],
        typer.Argument(metavar="NAME", help="ml-100k, ml-1m, ml-10m, ml-20m or ml-latest-small."),
    ],
    dest: Annotated[
        Path | None, typer.Argument(metavar="DEST", help="The folder for its files.", show_default="NAME")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files in DEST.")] = False,
) -> None:
    """Fetch MovieLens ratings from GroupLens, and check them; an interrupted fetch goes on."""
    import mlless
    from mlless.cli.console import bar, commands, console, quote, say
    from mlless.report.wording import size

    with bar(f"fetching {name}", shown=True) as move:
        got = mlless.fetch(
            name, dest, overwrite=overwrite, progress=move, tell=lambda text: typer.echo(text, err=True)
        )
    to = console()
    say(to, [("ratings", f"{got.ratings}: {size(got.ratings.stat().st_size)}")])
    if got.readme:
        say(to, [("terms", str(got.readme))])
    checked = "as published" if got.checked else "not checked: the publisher gives none for this set"
    say(to, [("md5", f"{got.md5} of the archive, {checked}")])
    say(to, commands(f"mlless partition {quote(got.ratings)} data/{name}"))
