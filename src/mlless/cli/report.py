"""``mlless report``: runs side by side, on a page."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlless.cli.completion import runs

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless report runs/ratings[/cyan]

[cyan]mlless report runs/bsp runs/isp runs/tuned --out reports/sync[/cyan]

[cyan]mlless report s3://bucket/runs/first runs/second[/cyan]"""


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", autocompletion=runs, help="Runs' folders or URLs, as made by mlless train."
        ),
    ],
    out: Annotated[
        str, typer.Option(help="The folder or URL for the page and its pictures; a report there is replaced.")
    ] = "report",
) -> None:
    """Draw runs on a page: loss, workers, time, bytes, the bill, and what the tuner did.

    Several runs are drawn into the same charts; those that have not come to their end are left out. The page
    is one file that opens anywhere, without a network; each chart lies beside it as a PNG.
    """
    from mlless.cli.console import console, say

    os.environ["MPLBACKEND"] = "agg"  # whatever the user's is: nothing is shown on a screen
    from mlless.locations import place_of
    from mlless.report.comparison.page import write_report
    from mlless.report.history import is_finished

    finished = [run for run in runs if is_finished(place_of(run))] or runs
    for run in runs:
        if run not in finished:
            typer.echo(f"left out {run}: it is under way, or has failed", err=True)
    say(console(), [("report", write_report(finished, out))])
