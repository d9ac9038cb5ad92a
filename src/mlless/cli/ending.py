"""The last words on a training, or on the start of one that goes on without us; and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mlless.cli.codes import DIVERGED, INTERRUPTED
from mlless.cli.console import commands, print_json, quote, say

if TYPE_CHECKING:
    from rich.console import Console

    from mlless.records import Summary


def tell_start(to: Console, out: str, *, json: bool = False) -> None:
    """Tell that a detached job is under way, and how to go on with it."""
    from mlless.detached.status import status

    run = quote(out)
    say(to, [("detached", "the job is under way, and goes on without this terminal")])
    say(to, commands(f"mlless attach {run}", f"mlless status {run}", f"mlless stop {run}"))
    if json:
        print_json(status(out))


def tell_end(to: Console, summary: Summary, out: str, dataset: str, *, json: bool = False) -> None:
    """Tell what came of a training; leave with an error's code if it did not come to a regular end."""
    from mlless.report.account import closing

    to.print()
    say(to, closing(summary, out))
    if json:
        print_json(summary)
    else:
        run = quote(out)
        say(to, commands(f"mlless evaluate {run} {quote(dataset)}", f"mlless predict {run} FILE"))
    if summary.stop_reason == "interrupted":
        typer.echo(f"interrupted: the model so far is in {out}", err=True)
        raise typer.Exit(INTERRUPTED)
    if summary.stop_reason == "diverged":
        rate = summary.job.optimizer.learning_rate
        typer.echo(
            f"error: the model diverged. The last good one is in {out}. "
            f"Try a lower --learning-rate than {rate:g}",
            err=True,
        )
        raise typer.Exit(DIVERGED)
