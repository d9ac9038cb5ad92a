"""How commands speak: text for a person on a terminal or in a log, JSON for scripts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from mlless.data.progress import ShowProgress

_LABEL = 10
_STYLES = {"result": "bold", "note": "yellow", "next": "cyan", "": "cyan"}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the exit code to the command."""
        raise BrokenPipeError  # rich would leave by itself, with another exit code


def console(*, stderr: bool = False) -> Console:
    """Return a console that leaves text as it is: no markup, no guessing at what to colour."""
    return _Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def say(to: Console, lines: Iterable[tuple[str, str]], *, width: int = _LABEL) -> None:
    """Print labelled lines, never wrapped: logs are read by line. Labels take ``width`` columns."""
    for label, text in lines:
        to.print(Text.assemble((f"{label:<{width}}", "dim"), (text, _STYLES.get(label, ""))), soft_wrap=True)


def commands(*lines: str) -> Iterator[tuple[str, str]]:
    """Yield commands to go on with as labelled lines."""
    for number, line in enumerate(lines):
        yield "" if number else "next", line


def quote(path: str | Path) -> str:
    """Return a path as one types it to a shell."""
    return shlex.quote(str(path))


def print_json(value: object) -> None:
    """Print a value as one JSON object."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


@contextmanager
def bar(what: str, *, shown: bool) -> Iterator[ShowProgress]:
    """Give a function that moves a progress bar on standard error: share done if known, and what is done."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    to = console(stderr=True)
    hidden = not (shown and to.is_terminal)
    with Progress(*columns, console=to, transient=True, disable=hidden, refresh_per_second=4) as progress:
        task = progress.add_task(what, total=1.0)

        def move(fraction: float | None, doing: str) -> None:
            """Show the share that is done, and what is done just now."""
            total = None if fraction is None else 1.0
            progress.update(task, total=total, completed=fraction or 0.0, description=doing)

        yield move
