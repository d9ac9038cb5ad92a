"""The options that say how raw rows are read, each declared once; a command takes them as one ``reading``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

Given = dict[str, Any]  # options of ``readers.Reading``, by name

_GROUP = "How raw rows are read, where they do not say it"
_NAMES = "by its usual names"


def _column(whose: str) -> Any:
    told = f"The column of {whose}: its name, or its number from 1."
    return typer.Option(metavar="COLUMN", help=told, show_default=_NAMES, rich_help_panel=_GROUP)


_OPTIONS: dict[str, Any] = {
    "user_column": Annotated[str | None, _column("users")],
    "item_column": Annotated[str | None, _column("items")],
    "rating_column": Annotated[str | None, _column("ratings")],
    "separator": Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What separates columns of text: a character, ::, tab or blanks.",
            show_default="that of the description or model, or found from the first lines",
            rich_help_panel=_GROUP,
        ),
    ],
    "header": Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether the first line of ratings names the columns.",
            show_default="found from it",
            rich_help_panel=_GROUP,
        ),
    ],
    "labels": Annotated[
        str | None,
        typer.Option(
            metavar="NO,YES",
            help="The two labels of clicks, that of no click first.",
            show_default="0,1 or -1,1 or false,true",
            rich_help_panel=_GROUP,
        ),
    ],
    "drop_unlabelled": Annotated[
        bool | None,
        typer.Option(
            "--drop-unlabelled",
            help="Leave rows without a rating or label out and count them.",
            rich_help_panel=_GROUP,
        ),
    ],
    "skip_malformed": Annotated[
        bool | None,
        typer.Option(
            "--skip-malformed",
            help="Leave malformed rows out and count them, if they are few.",
            rich_help_panel=_GROUP,
        ),
    ],
}


def with_reading(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` these options, and those of them that are given as its ``reading``."""
    signature = inspect.signature(command, eval_str=True)

    @wraps(command)
    def reading_command(**given: Any) -> None:
        """Call the command with the options that are given."""
        reading: Given = {name: value for name in _OPTIONS if (value := given.pop(name)) is not None}
        command(reading=reading, **given)

    own = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for one in signature.parameters.values()
        if one.name != "reading"
    ]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _OPTIONS.items()
    ]
    reading_command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return reading_command
