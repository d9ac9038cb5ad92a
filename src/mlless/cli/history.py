"""``mlless history``: the steps of a run as JSON lines, for other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from mlless.cli.completion import runs

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless history runs/ratings | jq .train_loss[/cyan]

[cyan]mlless history s3://bucket/runs/ratings --follow[/cyan]

[bold]Exit codes[/bold]

0 once the job is over; if it has failed or was lost, that of its error"""


def history(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", autocompletion=runs, help="A run's folder or URL, as given to mlless train --out."
        ),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print further steps as they come, until the job ends.")
    ] = False,
) -> None:
    """Print a JSON object a step, as history.jsonl has it, from a folder or a bucket, at any time.

    A step that the job has gone back behind is printed as well: see rewound_to.
    """
    import sys

    import msgspec

    from mlless.cli.codes import INTERRUPTED
    from mlless.detached.attaching import follow as follow_job
    from mlless.detached.attaching import quietly
    from mlless.detached.status import records_of
    from mlless.locations import place_of
    from mlless.records import StepRecord

    def tell(record: StepRecord) -> None:
        """Print a step as a line of JSON."""
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        sys.stdout.flush()

    if not follow:
        for record in records_of(place_of(run)):
            tell(record)
        return
    try:
        follow_job(place_of(run), quietly, tell)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
