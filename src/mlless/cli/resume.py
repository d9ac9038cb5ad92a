"""``mlless resume``: on with a training that was lost."""

from __future__ import annotations

from typing import Annotated

import typer

from mlless.cli.completion import datasets, runs
from mlless.cli.options import Detach, with_settings
from mlless.cli.settings import ANEW, Settings

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless resume runs/ratings[/cyan]

[cyan]mlless resume runs/ratings --workers 2 --max-time 600[/cyan]

[cyan]mlless resume s3://bucket/runs/ratings --store redis://cache:6379[/cyan]

[bold]Exit codes[/bold]

Those of mlless train"""


@with_settings(*ANEW.values())
def resume(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            autocompletion=runs,
            help="The run's folder or URL.",
        ),
    ],
    settings: Settings,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            autocompletion=datasets,
            help="Where the data set is now.",
            show_default="where it was",
        ),
    ] = None,
    detach: Detach = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and only it.")] = False,
) -> None:
    """Go on with a training that was killed or has failed, from its newest checkpoint.

    Time, money, history and the best model go on from where they were. The options of the run hold unless you
    give them again. Where functions run and meet must be given again, or be in the settings.
    """
    from mlless.cli.console import console, say
    from mlless.cli.ending import tell_end, tell_start
    from mlless.detached.launching import launch
    from mlless.driver import plan_resume, run_job
    from mlless.report.account import opening
    from mlless.report.left import resuming
    from mlless.report.progress import progress

    deployment = settings.deployment()
    with resuming(run) as left:
        job = plan_resume(left, settings.given_anew(), dataset)
        to = console(stderr=json)
        to.quiet = json and not to.is_terminal
        say(to, opening(job.spec, deployment))
        if not detach:
            with progress(job.spec, to, elapsed=left.seconds, earlier=left.records) as listen:
                done = run_job(
                    job.spec, job.dataset, left.place, listen=listen, deployment=deployment, left=job.left
                )
    if detach:  # it takes in by itself what is there
        launch(left.place, deployment, anew=settings.given_anew(), dataset=dataset)
        tell_start(to, run, json=json)
    else:
        tell_end(to, done.summary, run, job.dataset.location, json=json)
