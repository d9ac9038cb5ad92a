"""``mlless doctor``: whether a deployment works, and what to do about what does not."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from mlless.cli.options import with_settings
from mlless.cli.settings import OPTIONS, TABLES, Settings

if TYPE_CHECKING:
    from mlless.diagnosis import Finding

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless doctor[/cyan]

[cyan]mlless doctor data/ratings --out runs/first --store redis://localhost:6379 --workers 8[/cyan]

[bold]Exit codes[/bold]

0 if a job can run (! is a warning), else that of the first error"""

_MARKS = {"ok": "✓", "warning": "!", "failed": "✗"}
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


# Who follows a job is none of what a deployment is made of.
@with_settings(OPTIONS["workers"], *(one for one in TABLES["deployment"].values() if one.name != "log_to"))
def doctor(
    settings: Settings,
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help="A data set to read as well.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="PLACE", help="A run's folder or URL to write to as well.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check store, bus, data set and functions end to end, and show how quick they are.

    Every check does the real thing, under a name of its own, and leaves nothing behind.
    """
    from mlless.cli.console import print_json
    from mlless.doctor import examine
    from mlless.recipes import workers_of

    findings = []
    with closing(
        examine(settings.deployment(), workers=workers_of(settings.wishes()), dataset=dataset, out=out)
    ) as coming:
        for finding in coming:
            findings.append(finding)
            if not json:
                _tell(finding)
    code = next((finding.exit_code for finding in findings if finding.exit_code), 0)
    if json:
        print_json({"ok": code == 0, "findings": findings})
    raise typer.Exit(code)


def _tell(finding: Finding) -> None:
    from rich.text import Text

    from mlless.cli.console import console

    line = Text.assemble(
        (_MARKS[finding.outcome], _COLOURS[finding.outcome]),
        (f" {finding.check:<11}", "dim"),
        finding.text.rstrip("."),
    )
    if finding.cure:
        line.append(f". {finding.cure[0].upper()}{finding.cure[1:]}")
    console().print(line, soft_wrap=True)
