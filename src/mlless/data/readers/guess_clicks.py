"""PURE: what the columns of a table of clicks are, guessed from their names and first rows."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from mlless.data.features import MISSING, Layout
from mlless.data.readers.columns import ITEM, USER, known_columns, plain_name
from mlless.data.readers.forms import is_number
from mlless.data.readers.plan import Head
from mlless.data.readers.reading import plain_label

_LABELS = ("label", "click", "clicked", "isclick", "isclicked", "target", "y")
_ID = re.compile(r"(.*[^A-Za-z])?(id|ID|Id)|.*[a-z](ID|Id)")
_WHOLE = re.compile(r"[0-9]+(\.0)?")
_UNNAMED = ("", "Unnamed: 0")  # the second is what pandas calls it, and writes
_MANY = 5  # distinct numbers
_PAIRS = ({"0.0", "1.0"}, {"-1.0", "1.0"}, {"false", "true"})  # as they are written plainly


@dataclass(frozen=True, slots=True)
class Guess:
    """What the columns of a table probably are.

    ``numbering`` says that a first column without a name counts the rows, so it is left out. ``unknown`` are
    two labels if it is not known which one is that of a click.
    """

    layout: Layout
    numbering: bool = False
    unknown: Collection[str] = ()


def guess_layout(head: Head, labels: tuple[str, str] | None = None) -> Guess | None:
    """Return what the columns of a table are if it is one of clicks; None where that is not to be seen.

    The label is known by its name, or as the only column of two values that are ``labels``, in a table
    without users and items. What holds numbers is numeric, but for ids; the other columns are categories.
    """
    names = head.names
    if names is None or len(set(names)) < len(names) or known_columns(names).keys() >= {"user", "item"}:
        return None
    rows = {name: [row[place] for row in head.rows] for place, name in enumerate(names)}
    numbering = names[0] in _UNNAMED and _counts(rows[names[0]])
    if numbering:
        del rows[names[0]]
    values = {name: set(column) - set(MISSING) for name, column in rows.items()}
    pairs = (set(map(plain_label, labels)),) if labels else _PAIRS
    named = [name for name in values if plain_name(name) in _LABELS]
    two = [name for name, of in values.items() if set(map(plain_label, of)) in pairs]
    candidates = named or two
    others = [name for name in values if name not in candidates]
    if len(candidates) != 1 or not others:
        return None
    numeric, odd = [], set()
    for name in others:
        of = values[name]
        texts = {value for value in of if not is_number(value)}
        # One odd word among many numbers, such as "?", stands for a missing one.
        if of and not _are_ids(name, of) and (not texts or (len(texts) == 1 and len(of) > _MANY)):
            numeric.append(name)
            odd |= texts
    layout = Layout(
        candidates[0],
        tuple(numeric),
        tuple(name for name in others if name not in numeric),
        head.separator,
        labels=labels or msgspec.UNSET,
        missing=(*MISSING, *sorted(odd)) if odd else msgspec.UNSET,
    )
    found = values[candidates[0]]
    known = set().union(*pairs)
    unknown = found if len(found) == 2 and not known.issuperset(map(plain_label, found)) else ()
    return Guess(layout, numbering, unknown)


def _counts(column: list[str]) -> bool:
    """Return whether whole numbers count up from 0; some rows may be missing."""
    numbers = [int(text) if re.fullmatch("[0-9]{1,18}", text) else -1 for text in column]
    return numbers[:1] == [0] and all(one < two for one, two in pairwise(numbers))


def _are_ids(name: str, values: set[str]) -> bool:
    named = plain_name(name) in (*USER, *ITEM) or _ID.fullmatch(name) is not None
    return named and all(map(_WHOLE.fullmatch, values))
