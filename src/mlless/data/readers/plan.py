"""PURE: what the columns of a table of ratings are, and whether it is one, from its first rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlless.data.readers.columns import find_columns, known_columns
from mlless.data.readers.forms import Form, is_number
from mlless.data.readers.reading import Reading
from mlless.data.readers.table import Plan
from mlless.errors import InputError, UsageError

_BY_NUMBER = {"user": 1, "item": 2, "rating": 3}
_MOST = 0.9  # of the first rows; others may be malformed
_EARLIEST = 1e8  # seconds since 1970: times of ratings are later, and ratings and counts are less


def plan_of(form: Form, part: str, reading: Reading, rated: bool) -> Plan:
    """Return which columns of a table of text are wanted, and whether its first row names them."""
    first = form.rows[0]
    if reading.names is not None:
        columns = find_columns(reading.names, reading.columns, part, rated=rated)
        return Plan(columns.places, len(reading.names))
    if _has_header(form, reading):
        columns = find_columns(first, reading.columns, f"{part}, line {form.before + 1}", rated=rated)
        return Plan(columns.places, form.count, first)
    given = reading.columns or {
        role: place for role, place in _BY_NUMBER.items() if rated or role != "rating"
    }
    if len(first) < len(given):
        found = ", ".join(first)
        raise InputError("no rating column", where=part, expected="user, item and rating", found=found)
    numbered = [f"column {place}" for place in range(1, form.count + 1)]
    return Plan(find_columns(numbered, given, part, rated=rated).places, form.count)


def _has_header(form: Form, reading: Reading) -> bool:
    """Return whether the first row names the columns: it has known names, or no number where others have."""
    if reading.header is not None:
        return reading.header
    first = form.rows[0]
    if known_columns(first) or not all(str(column).isdigit() for column in reading.columns.values()):
        return True
    return not any(map(is_number, first))


@dataclass(frozen=True, slots=True)
class Head:
    """The first rows of a table, and the ``names`` of its columns if it has any."""

    names: Sequence[str] | None
    rows: Sequence[Sequence[str]]
    separator: str = ","


def head_of(form: Form, reading: Reading) -> Head:
    """Return the first rows of a table of text."""
    header = _has_header(form, reading)
    rows = [row for row in form.rows[header:] if len(row) == form.count]
    return Head(form.rows[0] if header else None, rows, form.separator)


def doubt(head: Head) -> str | None:
    """Return why a table that was taken for ratings is perhaps none; None where it plainly is."""
    if head.names is not None:
        return None
    columns, most = len(head.rows[0]), _MOST * len(head.rows)
    if columns not in (3, 4) or sum(all(map(is_number, row[:3])) for row in head.rows) < most:
        return "it has no header, and not three columns of numbers"
    if columns == 4 and sum(_is_time(row[3]) for row in head.rows) < most:
        return "it has no header, and its fourth column is no time"
    return None


def perhaps_not_ratings(name: str, why: str, found: str) -> UsageError:
    """Return the error of rows that were taken for ratings and may be something else."""
    return UsageError(
        f"perhaps not ratings: {why}",
        where=name,
        found=found,
        cure="say --format ratings if they are, or which columns with --user-column 1 --item-column 2 "
        "--rating-column 3; of clicks, --labels no,yes or a description with --columns",
    )


def _is_time(text: str) -> bool:
    return is_number(text) and float(text.replace(",", ".")) >= _EARLIEST
