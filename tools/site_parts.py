"""The parts of the site that are written elsewhere.

A page has a mark where such a part belongs. ``<!-- made: commands -->`` is for what follows from the program:
its commands, tariffs, worlds or experiments. ``<!-- page: SECURITY.md -->`` is for a document of the
checkout.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

from mlless.billing.tariff import TARIFFS, load_tariff
from mlless.cli.app import app
from mlless.options import worded
from mlless.planning import PLANS, read_plan
from mlless.simulation.world import WORLDS, load_world

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_MADE = re.compile(r"^<!-- made: (\w+) -->$", re.MULTILINE)
_PAGE = re.compile(r"^<!-- page: (\S+) -->$", re.MULTILINE)
_LINK = re.compile(r"\[([^]]*)\]\((?!\w+:|#)([^)#]*)(#[^)]*)?\)")
_MARKUP = re.compile(r"\[/?(?:bold|cyan)\]")


def filled(text: str, page: Path) -> str:
    """Return the text of a ``page`` of the site, with each part in the place of its mark."""
    text = _PAGE.sub(lambda mark: _document(ROOT / mark[1], page), text)
    return _MADE.sub(lambda mark: _PARTS[mark[1]](), text)


def _document(path: Path, page: Path) -> str:
    """Return a document of the checkout; its links lead to pages of the site, as seen from ``page``."""

    def moved(link: re.Match[str]) -> str:
        target = (path.parent / link[2]).resolve()
        target = _shown().get(target, target)
        if not target.is_relative_to(DOCS):
            return link[1]
        return f"[{link[1]}]({os.path.relpath(target, page.parent)}{link[3] or ''})"

    return _LINK.sub(moved, path.read_text("utf-8"))


def _shown() -> dict[Path, Path]:
    """Return by document of the checkout the page that shows it."""
    return {
        ROOT / mark[1]: page
        for page in DOCS.rglob("*.md")
        for mark in _PAGE.finditer(page.read_text("utf-8"))
    }


def commands() -> str:
    """Return a section for each command: what it does, its arguments and options, examples."""
    return "\n".join(line for name, info in all_commands() for line in _command(name, info))


def all_commands() -> Iterator[tuple[str, Any]]:
    """Yield the name of every command, with what typer knows of it."""
    for info in app.registered_commands:
        yield f"mlless {info.callback.__name__}", info
    for group in app.registered_groups:
        for info in group.typer_instance.registered_commands:
            yield f"mlless {group.name} {info.callback.__name__}", info


def _command(name: str, info: Any) -> Iterator[str]:
    yield f"## {name}\n"
    yield inspect.cleandoc(info.callback.__doc__) + "\n"
    every = list(parameters(info.callback))
    panels: dict[str, list[tuple[str, ...]]] = {}
    for one in every:
        panels.setdefault(one[0], []).append(one[1:])
    for panel, rows in panels.items():
        yield f"**{panel}**\n\n| | value | default | what it is |\n| --- | --- | --- | --- |"
        yield from (f"| {' | '.join(row)} |" for row in rows)
        yield ""
    yield from _epilog(info.epilog or "")


def _epilog(text: str) -> Iterator[str]:
    """Yield an epilog in Markdown: its headings, its commands as blocks, its other lines."""
    lines = [line for line in text.splitlines() if line]
    for is_code, run in groupby(lines, lambda line: line.startswith("[cyan]")):
        bare = [_MARKUP.sub("", line) for line in run]
        if is_code:
            yield "\n".join(["```console", *bare, "```", ""])
        else:
            yield "\n\n".join(bare) + "\n"


def parameters(callback: Callable[..., Any]) -> Iterator[tuple[str, ...]]:
    """Yield of each parameter of a command: its panel, what to type, its kind, its default, its help."""
    for one in inspect.signature(callback, eval_str=True).parameters.values():
        kind, told = get_args(one.annotation)
        if isinstance(told, typer.models.ArgumentInfo):
            panel, typed = "Arguments", f"`{told.metavar.strip('[]')}`"
        else:
            panel = told.rich_help_panel or "Options"
            named = (
                [told.default] if isinstance(told.default, str) else []
            )  # where Annotated puts the first one
            flags = [*named, *(told.param_decls or ())] or [f"--{one.name.replace('_', '-')}"]
            typed = ", ".join(f"`{flag}`" for flag in flags)
        default = one.default
        if isinstance(told.show_default, str):
            without = told.show_default
        elif default is inspect.Parameter.empty or default is ...:
            without = "it must be given"
        elif default is None or default is False:
            without = ""
        else:
            without = f"`{default}`"
        help_text = " ".join((told.help or "").split()).replace("|", "\\|")
        value = _kind(kind, None if panel == "Arguments" else told.metavar)
        yield panel, typed, value.replace("|", "\\|"), without, help_text


def _kind(kind: Any, metavar: str | None) -> str:
    """Return in words what may be given."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if kind is bool:
        return ""
    if get_origin(kind) is Literal:
        return worded(kind).removeprefix("one of ")
    if metavar:
        return metavar
    named = {
        "str": "text",
        "int": "a whole number",
        "float": "a number",
        "Path": "a path",
        "list": "one or more",
    }
    return named[getattr(kind, "__name__", "str")]


def tariffs() -> str:
    """Return a section for each tariff that comes with the package: its prices, their sources and dates."""
    return "\n".join(_tariff(name) for name in TARIFFS.names())


def _tariff(name: str) -> str:
    tariff = load_tariff(name)
    rows = [
        ("a GB-second of functions", tariff.function.gb_second, tariff.function),
        ("a million invocations", tariff.function.million_invocations, tariff.function),
        *((f"{server.name}, an hour", server.hour, server) for server in tariff.servers),
    ]
    if tariff.requests:
        rows += [
            ("a thousand reads of objects", tariff.requests.thousand_reads, tariff.requests),
            ("a thousand writes of objects", tariff.requests.thousand_writes, tariff.requests),
        ]
    if tariff.machine:
        each = f"{tariff.machine.name}, an hour, for {tariff.machine.each} processes"
        rows.append((each, tariff.machine.hour, tariff.machine))
    if tariff.traffic:
        rows += [
            ("a GB read from the object store", tariff.traffic.gb_fetched, tariff.traffic),
            ("a GB of updates", tariff.traffic.gb_exchanged, tariff.traffic),
        ]
    table = "\n".join(
        f"| {what} | ${price:.10f}".rstrip("0").rstrip(".") + f" | {entry.source} | {entry.date} |"
        for what, price, entry in rows
    )
    function = tariff.function
    note = " ".join(tariff.note.split())
    return f"""\
## {name}

{tariff.name}. {note}

Functions are billed in units of {function.granularity:g} s, and for {function.minimum:g} s at least.

| what | price | source | date |
| --- | --- | --- | --- |
{table}
"""


def worlds() -> str:
    """Return a section for each world that comes with the package: its file."""
    return "\n".join(_file(name, load_world(name).name, WORLDS.text(name)) for name in WORLDS.names())


def plans() -> str:
    """Return a section for each experiment that comes with the package: its file."""
    return "\n".join(
        _file(name, read_plan(name).experiment.title, PLANS.text(name)) for name in PLANS.names()
    )


def _file(name: str, title: str, text: str) -> str:
    return f"## {name}\n\n{title}\n\n```text\n{text}```\n"


_PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "plans": plans,
    "tariffs": tariffs,
    "worlds": worlds,
}
