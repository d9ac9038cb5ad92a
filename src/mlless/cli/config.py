"""``mlless config``: what the settings come to, and where each is from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from mlless.cli.options import with_settings
from mlless.cli.settings import OPTIONS, TABLES, Setting, Settings

EXAMPLES = """[bold]Examples[/bold]

[cyan]mlless config[/cyan]

[cyan]mlless config --config cloud.toml --workers 24 --json[/cyan]

Of file, variables (MLLESS_WORKERS for --workers) and options each goes over the one before."""


@with_settings(*OPTIONS.values())
def config(
    settings: Settings,
    json: Annotated[bool, typer.Option("--json", help="Print the settings as JSON.")] = False,
) -> None:
    """Print the settings of a training with these options, and where each comes from.

    Passwords are not shown.
    """
    from mlless.cli.console import print_json

    settings.deployment()  # or the error it is
    if json:
        print_json(_values(settings))
    else:
        for line in _lines(settings):
            typer.echo(line)


def _values(settings: Settings) -> dict[str, object]:
    shown = {name: {"value": one.shown, "from": one.origin} for name, one in settings.all.items()}
    tables = {table: {name: shown[name] for name in options} for table, options in TABLES.items()}
    return {"file": str(settings.file) if settings.file else None, **tables}


def _lines(settings: Settings) -> Iterator[str]:
    """Yield the settings as a file of them would say it."""
    texts = {name: _assignment(one) for name, one in settings.all.items()}
    width = max(map(len, texts.values()))
    yield f"# file: {settings.file or 'none'}"
    for table, options in TABLES.items():
        yield f"\n[{table}]"
        for name in options:
            yield f"{texts[name]:<{width}}  # {settings.all[name].origin}"


def _assignment(setting: Setting) -> str:
    if setting.value is None:
        return f"# {setting.option.name}: {setting.option.unless_given}"
    return f"{setting.option.name} = {msgspec.json.encode(setting.shown).decode()}"
