"""``mlless config``: what the settings come to, and where each is from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mlless.cli.options import ConfigFile, Place, Training, given, spread, unless_given

if TYPE_CHECKING:
    from mlless.cli.settings import Setting, Settings

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless config[/cyan]

[cyan]mlless config --config cloud.toml --workers 24 --json[/cyan]

Of file, variables (MLLESS_WORKERS for --workers) and options each goes over the one before."""


@spread
def config(
    training: Training,
    place: Place,
    config: ConfigFile = None,
    json: Annotated[bool, typer.Option("--json", help="Print the settings as JSON.")] = False,
) -> None:
    """Print the settings with which these options would train, and where each is from.

    Passwords are not shown.
    """
    from mlless.cli.console import print_json
    from mlless.cli.settings import merge

    arguments = {"train": given(training), "deployment": given(place)}
    settings = merge(config, os.environ, arguments)
    settings.deployment()  # or the error it is
    if json:
        print_json(_values(settings))
    else:
        for line in _lines(settings):
            typer.echo(line)


def _values(settings: Settings) -> dict[str, object]:
    from mlless.cli.settings import TABLES

    file = str(settings.file) if settings.file else None
    tables = {
        table: {one.name: {"value": one.shown, "from": one.origin} for one in settings.table(table)}
        for table in TABLES
    }
    return {"file": file, **tables}


def _lines(settings: Settings) -> Iterator[str]:
    """Yield the settings as a file of them would say it."""
    from mlless.cli.settings import TABLES

    texts = {one: _assignment(one) for one in settings.all}
    width = max(map(len, texts.values()))
    yield f"# file: {settings.file or 'none'}"
    for table in TABLES:
        yield f"\n[{table}]"
        for one in settings.table(table):
            yield f"{texts[one]:<{width}}  # {one.origin}"


def _assignment(setting: Setting) -> str:
    import msgspec

    if setting.value is None:
        return f"# {setting.name}: {unless_given(setting.name)}"
    return f"{setting.name} = {msgspec.json.encode(setting.shown).decode()}"
