"""``mlless status``: how a run stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mlless.cli.completion import runs

if TYPE_CHECKING:
    from mlless.detached.status import Status
    from mlless.report.underway import Detached

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless status runs/ratings[/cyan]

[cyan]mlless status s3://bucket/runs/ratings --json[/cyan]

[cyan]mlless status runs/ratings --openmetrics > mlless.prom[/cyan]"""


def status(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=runs, help="A run's folder or URL, as given to mlless train --out."
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    openmetrics: Annotated[
        bool, typer.Option("--openmetrics", help="Print it as OpenMetrics text, for Prometheus.")
    ] = False,
) -> None:
    """Show the state of a run: whether its job runs, is lost or over, how far it has come, and what to do.

    A job is lost if it has not come to its end and no process is left that works on it.
    """
    from mlless.cli.console import commands, console, print_json, say
    from mlless.detached.openmetrics import exposition
    from mlless.detached.status import status
    from mlless.errors import UsageError

    if json and openmetrics:
        raise UsageError("--json and --openmetrics do not go together", cure="leave one of the two out")
    found = status(run)
    if openmetrics:
        typer.echo(exposition(found), nl=False)
        return
    if json:
        print_json(found)
        return
    to = console()
    say(to, told(found))
    say(to, commands(*_next(found)))


def told(status: Status) -> Iterator[tuple[str, str]]:
    """Yield labelled lines of how a run stands."""
    from mlless.billing.amount import money
    from mlless.report.account import functions_told
    from mlless.report.wording import count, duration, metrics

    yield "run", status.run
    yield "state", _state(status)
    if status.error:
        yield "error", status.error
    if status.step is not None:
        yield "at", f"epoch {status.epoch:.1f} of at most {status.epochs}, step {count(status.step)}"
    if status.heldout:
        yield "held out", metrics(status.heldout)
    if status.model_step:
        yield "model", f"{metrics(status.best) or 'not scored'}, as it was after step {status.model_step}"
    if status.workers:
        yield "workers", count(status.workers)
    if functions := functions_told(status.handovers, status.lost):
        yield "functions", functions
    if status.step is not None:
        yield "time", duration(status.seconds)
    if status.cost is not None:
        yield "cost", money(status.cost)
    if status.state in ("lost", "failed"):
        from_where = "its first step" if status.checkpoint is None else f"step {count(status.checkpoint)}"
        yield "resumed", f"it would go on from {from_where}"
    if status.job and status.job.detached:
        yield "log", status.job.detached.log
        for loss in status.job.detached.losses:
            yield "earlier", loss


def _state(status: Status) -> str:
    job = status.job
    if job is None:
        if status.state == "lost":
            return "lost: its process was killed, and it holds no server or function any more"
        return f"{status.state} ({status.stop_reason})" if status.state == "finished" else status.state
    what = _what(job.detached)
    if status.state == "lost":
        return f"lost: its {what} {job.pid} of {job.host} is gone"
    return f"{status.state}, {what} {job.pid} of {job.host}"


def _what(detached: Detached | None) -> str:
    if detached is None:
        return "process"
    return "detached process" if detached.guardian else f"function {detached.number}, process"


def _next(status: Status) -> Iterator[str]:
    from mlless.cli.console import quote
    from mlless.report.account import resume_command

    run, resume = quote(status.run), resume_command(status.run, status.options)
    match status.state:
        case "starting" | "running":
            yield f"mlless attach {run}"
            yield f"mlless stop {run}"
        case "lost":
            yield resume
            if status.job is not None:
                yield f"mlless clean {run}"
        case "failed":
            yield resume
    if status.model_step and status.state in ("lost", "failed", "finished"):
        yield f"mlless predict {run} FILE"
