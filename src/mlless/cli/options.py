"""From declared options to a command: typer sees each of them, the command gets the settings they come to."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import typer

from mlless.cli import completion
from mlless.cli.settings import OPTIONS, merge
from mlless.options import Declared

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings in TOML; these options go over it.",
        show_default="MLLESS_CONFIG, or mlless.toml if it is here",
        rich_help_panel=OPTIONS["store"].option.group,
    ),
]


Detach = Annotated[
    bool,
    typer.Option(
        "--detach",
        help="Leave once the job is under way. It goes on without this terminal. With --runtime lithops and "
        "--out in a bucket its supervisor is a function, too; else a process of this machine.",
    ),
]


_METAVARS = {int: "INTEGER", float: "FLOAT"}


def with_settings(*every: Declared) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command ``--config`` and these options, and their ``settings`` in place of them."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        """Return the command with these options."""
        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.name != "settings"]
        options = [_parameter(one.name, _option(one)) for one in every]

        @wraps(command)
        def settled(*, config: Path | None, **given: Any) -> None:
            """Call the command with the settings that files, variables and arguments come to."""
            arguments = {one.name: value for one in every if (value := given.pop(one.name)) is not None}
            command(settings=merge(config, os.environ, arguments), **given)

        parameters = [*own, *options, _parameter("config", ConfigFile)]
        settled.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return settled

    return decorate


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    """Return an option that is None, "not given", unless it is given."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _option(one: Declared) -> Any:
    # Numbers, and what typer has no type for, are text to it; ``merge`` converts them and says what is wrong.
    kind = one.type if one.type is bool or get_origin(one.type) is Literal else str
    told = typer.Option(
        one.flag,
        help=one.option.help,
        metavar=one.option.metavar or _METAVARS.get(one.type),
        show_default=one.unless_given,
        autocompletion=completion.OPTIONS.get(one.name),
        rich_help_panel=one.option.group,
    )
    return Annotated[kind | None, told]
