"""The description of a table's columns, as a TOML file.

label = "clicked"                  # 0 or 1, or -1 or 1
numeric = ["age", "price"]
categorical = ["site", "device"]
separator = ";"                    # of text; a comma unless given
names = ["clicked", "age", ...]    # of all columns in order, for text without a header
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from mlless.data.features import Layout
from mlless.errors import UsageError

_CURE = "see how columns are described in the guide"


def read_layout(path: str | Path) -> Layout:
    """Return the description in the file ``path``; UsageError if there is none, or not a valid one."""
    where = str(path)
    try:
        with Path(path).open("rb") as file:
            layout = msgspec.convert(tomllib.load(file), Layout)
    except OSError as error:
        raise UsageError(f"cannot read: {error.strerror or error}", where=where) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError("not a description of columns", where=where, found=str(error), cure=_CURE) from error
    layout.check(where)
    return layout
