"""``mlless attach``: a job that runs elsewhere, shown as if it ran here."""

from __future__ import annotations

from typing import Annotated

import typer

from mlless.cli.codes import INTERRUPTED
from mlless.cli.completion import runs

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless attach runs/ratings[/cyan]

[bold]Exit codes[/bold]

as of mlless train; 130 also after Ctrl-C, which leaves the job alone"""


def attach(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=runs, help="A run's folder or URL, as given to mlless train --out."
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and only it.")] = False,
) -> None:
    """Show how a job goes until it ends, detached or not; end with the exit code of its mlless train.

    Ctrl-C leaves the job alone. A run that is over is told from its start to its end.
    """
    from mlless.cli.console import console, quote
    from mlless.cli.ending import tell_end
    from mlless.detached.attaching import HINT, follow
    from mlless.locations import place_of
    from mlless.report.progress import progress

    to = console(stderr=json)
    to.quiet = json and not to.is_terminal
    try:
        ended = follow(place_of(run), lambda spec, elapsed: progress(spec, to, elapsed=elapsed, hint=HINT))
    except KeyboardInterrupt:
        said = f"mlless attach {quote(run)} shows it again, mlless stop {quote(run)} ends it"
        typer.echo(f"the job goes on: {said}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    tell_end(to, ended.summary, run, ended.summary.job.dataset, json=json)
