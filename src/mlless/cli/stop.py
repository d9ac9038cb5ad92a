"""``mlless stop``: a job's orderly end."""

from __future__ import annotations

from typing import Annotated

import typer

from mlless.cli.completion import runs

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless stop runs/ratings[/cyan]

[cyan]mlless stop s3://bucket/runs/ratings --within 60[/cyan]"""


def stop(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=runs, help="The folder or URL of a run that is under way."
        ),
    ],
    within: Annotated[float, typer.Option(help="Seconds to wait for its end.", min=0.0)] = 300.0,
) -> None:
    """End a job in order and keep its model; the run cannot be resumed then.

    It takes any job, detached or not, and lets it finish the step at hand. The job looks for the request
    about once a second, in an object store every five seconds.
    """
    from mlless.cli.console import console, say
    from mlless.cli.status import told
    from mlless.detached.stopping import stop

    say(console(), told(stop(run, within=within)))
