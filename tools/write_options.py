"""Writes what is made from the declared options: the types of ``mlless.train``, and the page of settings.

    python tools/write_options.py

The tests fail while either is not up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlless.cli.settings import ANEW, OPTIONS, TABLES
from mlless.options import Declared, spelt, worded

ROOT = Path(__file__).parents[1]
TYPES = ROOT / "src" / "mlless" / "train_options.py"
PAGE = ROOT / "docs" / "reference" / "options.md"
_TABLES = re.compile(
    r"(?<=<!-- options: made by tools/write_options.py -->\n).*?(?=<!-- end of options -->)", re.DOTALL
)


def types() -> str:
    """Return the module of the types."""
    return f'''"""The options of ``mlless.train`` and ``resume`` by type, for editors and type checkers.

None is "not given".

Made from their declarations by tools/write_options.py.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class TrainOptions(TypedDict, total=False):
    """What ``mlless.train`` takes by name: the fields of ``Wishes`` and of ``Deployment``."""

{_fields(OPTIONS.values())}

class ResumeOptions(TypedDict, total=False):
    """What ``mlless.resume`` takes by name: what it may be given anew of ``Wishes``, and ``Deployment``."""

{_fields(ANEW.values())}'''


def _fields(options: Iterable[Declared]) -> str:
    return "".join(f"    {one.name}: {spelt(one.type)} | None\n" for one in options)


def page(text: str) -> str:
    """Return the text of the page with its tables of settings made anew."""
    return _TABLES.sub(lambda _: "\n".join([*_rows(), "", ""]), text)


def _rows() -> Iterator[str]:
    for table, options in TABLES.items():
        yield f"\n`[{table}]`\n"
        yield "| setting | value | default | what it is |"
        yield "| --- | --- | --- | --- |"
        groups: dict[str, list[Declared]] = {}
        for one in options.values():
            groups.setdefault(one.option.group, []).append(one)
        for group, members in groups.items():
            yield f"| **{group}** | | | |"
            yield from map(_row, members)


def _row(one: Declared) -> str:
    value = worded(one.type).removeprefix("one of ")
    if one.option.metavar:
        value = f"{value} ({one.option.metavar})"
    return f"| `{one.name}` | {value} | {one.unless_given} | {one.option.help} |"


if __name__ == "__main__":
    TYPES.write_text(types())
    PAGE.write_text(page(PAGE.read_text()))
