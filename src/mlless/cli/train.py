"""``mlless train``: a data set to a model."""

from __future__ import annotations

from typing import Annotated

import typer

from mlless.cli.completion import datasets
from mlless.cli.options import Detach, with_settings
from mlless.cli.settings import OPTIONS, Settings

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless train data/ratings --workers 4 --out runs/ratings[/cyan]

[cyan]mlless train data/ratings --factors 40 --epochs 50 --patience 5 --out runs/wide[/cyan]

[cyan]mlless train s3://bucket/data/ratings --out s3://bucket/runs/ratings[/cyan]

[cyan]mlless train data/ratings --sync bsp --target rmse=0.87 --max-time 60 --out runs/bsp[/cyan]

[cyan]mlless train data/ratings --detach --out runs/ratings[/cyan]

[bold]Exit codes[/bold]

0 trained, 130 interrupted (Ctrl-C; the model so far is saved), 7 diverged, others: an error"""


@with_settings(*OPTIONS.values())
def train(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            autocompletion=datasets,
            help="A data set made with mlless partition: a folder or URL.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(help="The run's folder or URL, for model.safetensors, history.jsonl, summary.json."),
    ],
    settings: Settings,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run's folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and only it.")] = False,
    detach: Detach = False,
) -> None:
    """Train a model on a data set: on this machine, unless told otherwise.

    What is not given is taken from the settings (see mlless config), or takes a value that is known to work.
    The best model by the held-out metric is kept.
    """
    from mlless.cli.console import console, say
    from mlless.cli.ending import tell_end, tell_start
    from mlless.data.dataset import open_dataset
    from mlless.data.findings import check_two_classes
    from mlless.detached.launching import launch
    from mlless.driver import plan_job, run_job
    from mlless.locations import place_of
    from mlless.report.account import opening
    from mlless.report.progress import progress
    from mlless.report.vacancy import check_run_folder

    deployment = settings.deployment()
    data = open_dataset(dataset)
    spec = plan_job(settings.wishes(), data, deployment)
    place = place_of(out)
    check_two_classes(data.manifest, data.location)
    check_run_folder(place, overwrite)
    to = console(stderr=json)
    to.quiet = json and not to.is_terminal
    say(to, opening(spec, deployment))
    if detach:
        launch(place, deployment, spec, overwrite=overwrite)
        tell_start(to, out, json=json)
        return
    with progress(spec, to) as listen:
        run = run_job(spec, data, place, overwrite=overwrite, listen=listen, deployment=deployment)
    tell_end(to, run.summary, out, dataset, json=json)
