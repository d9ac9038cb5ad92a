"""``mlless clean``: what a job that was killed has left behind goes."""

from __future__ import annotations

from typing import Annotated

import typer

from mlless.cli.completion import runs
from mlless.cli.options import with_settings
from mlless.cli.settings import OPTIONS, Settings

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless clean runs/ratings[/cyan]

[cyan]mlless clean s3://bucket/runs/ratings --store redis://:PASSWORD@HOST:6379[/cyan]"""


@with_settings(OPTIONS["store"], OPTIONS["bus"])
def clean(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=runs, help="The folder or URL of a run whose job was killed."
        ),
    ],
    settings: Settings,
) -> None:
    """Remove what a lost job has left: processes, keys, queues, its folder of updates, half-written files.

    Model, history, summary and checkpoint stay, and nothing of other jobs is touched. The run knows its
    servers but no passwords: where these are needed give --store and --bus, or the settings that the job had.
    Servers that are not the job's are passed over.
    """
    from mlless.cli.console import console, say
    from mlless.detached.cleaning import clean
    from mlless.detached.status import status

    store, bus = settings.all["store"].value, settings.all["bus"].value
    removed = clean(run, store=store, bus=bus)
    if removed:
        say(console(), [("removed" if not number else "", text) for number, text in enumerate(removed)])
    else:
        typer.echo(f"nothing to clean: the run is {status(run).state}")
