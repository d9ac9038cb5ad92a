"""``mlless tariff``: the prices that jobs are metered by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlless.cli.completion import tariffs

if TYPE_CHECKING:
    from mlless.billing.tariff import Tariff

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless tariff[/cyan]

[cyan]mlless tariff aws-lambda-x86 > ours.toml[/cyan]

[cyan]mlless train data/ratings --tariff ours.toml --out runs/ours[/cyan]"""


def tariff(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", autocompletion=tariffs, help="A tariff of the list, or a TOML file of your own."
        ),
    ] = None,
) -> None:
    """List the tariffs, or print one as a file: to check its sources and dates, or to write your own."""
    from mlless.billing.tariff import TARIFFS, load_tariff
    from mlless.cli.console import console, say

    if name is None:
        say(console(), [(one, _summary(load_tariff(one))) for one in TARIFFS.names()], width=20)
        return
    load_tariff(name)  # or the error it is
    typer.echo(TARIFFS.text(name), nl=False)


def _summary(tariff: Tariff) -> str:
    servers = ", ".join(f"{server.name} ${server.hour:g} an hour" for server in tariff.servers)
    functions = f"{tariff.function.gb_second:.10f}".rstrip("0")
    return f"{tariff.name}: ${functions} a GB-second; {servers or 'no server'}"
