"""``mlless function``: what is deployed where functions run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless function build deploy[/cyan]

[cyan]mlless function build deploy --python 3.12[/cyan]

[cyan]mlless function build deploy --backend gcp_cloudrun[/cyan]

[cyan]mlless function build deploy --package[/cyan]"""


def build(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The folder for the files.")],
    backend: Annotated[
        Literal["aws_lambda", "gcp_cloudrun", "localhost"],
        typer.Option(help="Lithops' name of the cloud; localhost: containers of a machine of your own."),
    ] = "aws_lambda",
    python: Annotated[
        str | None,
        typer.Option(
            help="The Python of the functions; Lithops wants the driver's.", show_default="the one in use"
        ),
    ] = None,
    package: Annotated[
        bool,
        typer.Option(
            "--package",
            help="Install the packages into DEST/package, for mlless.launch.handler on AWS Lambda.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace these files in DEST.")] = False,
) -> None:
    """Write what functions run in: a Dockerfile for Lithops, with the packages of a worker alone."""
    from mlless.cli.console import commands, console, quote, say
    from mlless.function.backends import BACKENDS
    from mlless.function.build import build as write
    from mlless.function.build import runtime_name, size_of
    from mlless.report.wording import size

    version = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    written = write(dest, version, backend, package=package, overwrite=overwrite)
    to = console()
    for path in written:
        say(to, [("wrote", f"{path}: {size(size_of(path))}" if path.is_dir() else str(path))])
    if package:
        say(to, commands(f"cd {quote(dest / 'package')} && zip -qr ../function.zip ."))
    else:
        build_it = BACKENDS[backend].built.format(name=runtime_name(version))
        say(to, commands(f"cd {quote(dest)} && {build_it}"))
