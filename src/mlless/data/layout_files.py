"""The description of a table's columns, as a TOML file.

Of a table of clicks:

label = "clicked"                  # 0 or 1, -1 or 1, or false or true
labels = ["no", "yes"]             # other labels, that of no click first
numeric = ["age", "price"]
categorical = ["site", "device"]
missing = ["", "NA"]               # the texts that stand for a missing value
separator = ";"                    # of text; a comma unless given
names = ["clicked", "age", ...]    # of all columns in order, for text without a header

Of a table of ratings, by names or by numbers from 1:

user = "userId"
item = "gameId"
rating = "plays"                   # separator and names as above
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from mlless.data.features import Layout, RatingsLayout
from mlless.decoding import explained
from mlless.errors import UsageError

_CURE = "the page on click models shows how columns are described"


def read_layout(path: str | Path) -> Layout | RatingsLayout:
    """Return the description in the file ``path``; UsageError if there is none, or not a valid one."""
    where = str(path)
    try:
        with Path(path).open("rb") as file:
            found = tomllib.load(file)
        if "user" in found or "item" in found:
            return msgspec.convert(found, RatingsLayout)
        layout = msgspec.convert(found, Layout)
    except OSError as error:
        raise UsageError(f"cannot read: {error.strerror or error}", where=where) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"not a description of columns: {explained(error)}", where=where, cure=_CURE
        ) from error
    layout.check(where)
    return layout


def layout_text(layout: Layout) -> str:
    """Return the lines of a file that describes the columns so."""
    lines = [f"label = {_quoted(layout.label)}"]
    for name, columns in (("numeric", layout.numeric), ("categorical", layout.categorical)):
        if columns:
            lines.append(f"{name} = [{', '.join(map(_quoted, columns))}]")
    if layout.labels is not msgspec.UNSET:
        lines.append(f"labels = [{', '.join(map(_quoted, layout.labels))}]")
    if layout.missing is not msgspec.UNSET:
        lines.append(f"missing = [{', '.join(map(_quoted, layout.missing))}]")
    if layout.separator != ",":
        lines.append(f"separator = {_quoted(layout.separator)}")
    return "".join(f"{line}\n" for line in lines)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()  # strings of JSON are strings of TOML
