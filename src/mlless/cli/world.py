"""``mlless world``: the virtual worlds that systems can be compared in."""

from __future__ import annotations

from typing import Annotated

import typer

from mlless.cli.completion import worlds

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless world[/cyan]

[cyan]mlless world aws-lambda > ours.toml[/cyan]

[cyan]mlless compare data/ratings --world ours.toml --workers 24 --out compared[/cyan]"""


def world(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", autocompletion=worlds, help="A world of the list, or a TOML file of your own."
        ),
    ] = None,
) -> None:
    """List the worlds, or print one as a file: to check its sources and dates, or to write your own."""
    from mlless.cli.console import console, say
    from mlless.simulation.world import WORLDS, load_world

    if name is None:
        say(console(), [(one, load_world(one).name) for one in WORLDS.names()], width=20)
        return
    load_world(name)  # or the error it is
    typer.echo(WORLDS.text(name), nl=False)
