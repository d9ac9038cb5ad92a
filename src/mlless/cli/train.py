"""``mlless train``: a data set to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlless.cli.codes import DIVERGED, INTERRUPTED
from mlless.job import MergeRule

if TYPE_CHECKING:
    from mlless.records import Summary

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless train data/ratings --workers 4 --out runs/ratings[/cyan]

[cyan]mlless train data/ratings --factors 40 --epochs 50 --patience 5 --out runs/wide[/cyan]

[cyan]mlless train s3://bucket/data/ratings --out s3://bucket/runs/ratings[/cyan]

[cyan]mlless train data/ratings --sync bsp --target rmse=0.87 --max-time 60 --out runs/bsp[/cyan]

[bold]Exit codes[/bold]

0 trained, 130 interrupted (Ctrl-C; the model so far is saved), 7 diverged, others: an error"""

_MODEL = "What to train"
_SYNC = "Workers and what they exchange"
_STOP = "When to stop: whichever comes first"


def train(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A data set made with mlless partition: a folder or URL.")
    ],
    out: Annotated[
        str,
        typer.Option(help="The run's folder or URL, for model.safetensors, history.jsonl, summary.json."),
    ],
    model: Annotated[
        Literal["mf", "lr"] | None,
        typer.Option(
            help="Matrix factorisation of ratings, or logistic regression on clicks.",
            show_default="follows from the data set",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    factors: Annotated[
        int | None, typer.Option(help="Factors of mf.", show_default="20", rich_help_panel=_MODEL)
    ] = None,
    optimizer: Annotated[
        Literal["adagrad", "nesterov"], typer.Option(help="How to step.", rich_help_panel=_MODEL)
    ] = "adagrad",
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Its learning rate.", show_default="0.1 with adagrad", rich_help_panel=_MODEL),
    ] = None,
    l2: Annotated[
        float | None,
        typer.Option(
            "--l2",
            help="Strength of L2 regularisation.",
            show_default="0.06 for mf, 8 / rows for lr",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Decides the start and the order of mini-batches.", rich_help_panel=_MODEL)
    ] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes.", show_default="4", rich_help_panel=_SYNC)
    ] = None,
    sync: Annotated[
        Literal["bsp", "isp"],
        typer.Option(
            help="bsp: publish every change; isp: only the significant ones.", rich_help_panel=_SYNC
        ),
    ] = "isp",
    significance: Annotated[
        float | None,
        typer.Option(
            help="ISP's threshold v: 0 publishes every change.",
            show_default="0.7 for mf, 0.35 for lr",
            rich_help_panel=_SYNC,
        ),
    ] = None,
    merge: Annotated[
        MergeRule | None,
        typer.Option(
            help="How updates are put together.",
            show_default="follows from model and optimizer",
            rich_help_panel=_SYNC,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the data.", show_default="at most 30 for mf, 20 for lr", rich_help_panel=_STOP
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Evaluations in a row without a new best.",
            show_default="3 for mf, 2 for lr; none with --epochs",
            rich_help_panel=_STOP,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC=VALUE",
            help="train_loss, or held-out rmse, log_loss, auc: as in rmse=0.87.",
            rich_help_panel=_STOP,
        ),
    ] = None,
    max_time: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time since the start.", rich_help_panel=_STOP)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run's folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and only it.")] = False,
) -> None:
    """Train a model with worker processes on this machine.

    What is not given takes a value that is known to work. The best model by the held-out metric is kept.
    """
    from mlless.cli.console import commands, console, print_json, quote, say
    from mlless.data.dataset import open_dataset
    from mlless.driver import check_run_folder, plan_job, run_job
    from mlless.recipes import Wishes
    from mlless.report.account import closing, opening
    from mlless.report.progress import progress

    wishes = Wishes(
        model=model,
        workers=workers,
        sync=sync,
        significance=significance,
        factors=factors,
        optimizer=optimizer,
        learning_rate=learning_rate,
        l2=l2,
        merge=merge,
        epochs=epochs,
        patience=patience,
        target=target,
        max_time=max_time,
        seed=seed,
    )
    data = open_dataset(dataset)
    spec = plan_job(wishes, data)
    check_run_folder(out, overwrite)
    to = console(stderr=json)
    to.quiet = json and not to.is_terminal
    say(to, opening(spec, data.manifest))
    with progress(spec, to) as listen:
        run = run_job(spec, data, out, overwrite=overwrite, listen=listen)
    to.print()
    say(to, closing(run.summary, data.manifest, out))
    if json:
        print_json(run.summary)
    else:
        say(
            to,
            commands(f"mlless evaluate {quote(out)} {quote(dataset)}", f"mlless predict {quote(out)} FILE"),
        )
    _exit(run.summary, out)


def _exit(summary: Summary, out: str) -> None:
    """Leave with an error's code if the run did not come to a regular end."""
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
