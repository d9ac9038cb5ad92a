"""All commands under one name, and what becomes of their errors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import typer

from mlless.cli import (
    attach,
    clean,
    compare,
    config,
    doctor,
    evaluate,
    fetch,
    function,
    history,
    partition,
    predict,
    recommend,
    report,
    resume,
    status,
    stop,
    synthesize,
    tariff,
    train,
    world,
)
from mlless.cli.codes import BROKEN_PIPE, INTERRUPTED
from mlless.errors import MLLessError
from mlless.report.output import lasting_output, plain_warnings

_EXAMPLES = """[bold]A model of ratings in three commands:[/bold]

[cyan]mlless partition ratings.csv data/ratings[/cyan]

[cyan]mlless train data/ratings --workers 4 --out runs/ratings[/cyan]

[cyan]mlless predict runs/ratings pairs.csv --out predictions.csv[/cyan]"""


@contextmanager
def _told() -> Iterator[None]:
    """Tell an error that a user can act on in a line, without a traceback, and leave with its code.

    Warnings are told in a line, too.
    """
    try:
        with plain_warnings(partial(typer.echo, err=True)):
            yield
    except MLLessError as error:
        typer.echo("\n".join([f"error: {error.as_typed}", *getattr(error, "__notes__", [])]), err=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more would end the interpreter's end
        said, notes = "interrupted: stopped at once", getattr(error, "__notes__", [])
        typer.echo("\n".join([said, *notes] if notes else [f"{said}, no result is written"]), err=True)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output has had enough. Python would complain once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import mlless

        typer.echo(f"mlless {mlless.__version__}")
        raise typer.Exit


@app.callback(epilog=_EXAMPLES)
def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Train large sparse models: factorisations of ratings, logistic regressions on clicks.

    Workers share only the updates that matter.
    """


_COMMANDS = {
    "Data": (
        (partition.partition, partition.EXAMPLES),
        (fetch.fetch, fetch.EXAMPLES),
        (synthesize.synthesize, synthesize.EXAMPLES),
    ),
    "Models": (
        (train.train, train.EXAMPLES),
        (resume.resume, resume.EXAMPLES),
        (evaluate.evaluate, evaluate.EXAMPLES),
        (predict.predict, predict.EXAMPLES),
        (recommend.recommend, recommend.EXAMPLES),
        (report.report, report.EXAMPLES),
        (compare.compare, compare.EXAMPLES),
    ),
    "Jobs under way": (
        (status.status, status.EXAMPLES),
        (attach.attach, attach.EXAMPLES),
        (history.history, history.EXAMPLES),
        (stop.stop, stop.EXAMPLES),
        (clean.clean, clean.EXAMPLES),
    ),
    "Where it runs, and what that costs": (
        (config.config, config.EXAMPLES),
        (doctor.doctor, doctor.EXAMPLES),
        (tariff.tariff, tariff.EXAMPLES),
        (world.world, world.EXAMPLES),
    ),
}
_NEED_NOTHING = (config.config, doctor.doctor, tariff.tariff, world.world)
for _panel, _commands in _COMMANDS.items():
    for _command, _examples in _commands:
        # What a training has come to is in its files: it goes on if no one reads what it prints.
        _guarded = (
            lasting_output()(_told()(_command))
            if _command in (train.train, resume.resume)
            else _told()(_command)
        )
        app.command(no_args_is_help=_command not in _NEED_NOTHING, epilog=_examples, rich_help_panel=_panel)(
            _guarded
        )

_function = typer.Typer(no_args_is_help=True, help="Build what functions of a cloud run in.")
_function.command(no_args_is_help=True, epilog=function.EXAMPLES)(_told()(function.build))
app.add_typer(_function, name="function", rich_help_panel=_panel)
