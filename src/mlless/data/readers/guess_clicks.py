"""PURE: what the columns of a table of clicks are, guessed from their names and first rows."""

from __future__ import annotations

import msgspec

from mlless.data.features import MISSING, Layout
from mlless.data.readers.columns import known_columns, plain_name
from mlless.data.readers.forms import is_number
from mlless.data.readers.plan import Head

_LABELS = ("label", "click", "clicked", "isclick", "isclicked", "target", "y")
_MANY = 5  # distinct numbers
_PAIRS = ({"0", "1"}, {"-1", "1"}, {"false", "true"}, {"0.0", "1.0"})


def guess_layout(head: Head, *, labels_told: bool) -> Layout | None:
    """Return what the columns of a table are if it is one of clicks; None where that is not to be seen.

    The label is known by its name, or as the only column of two values, in a table without users and items.
    What holds numbers is numeric, the other columns are categories.
    """
    names = head.names
    if names is None or len(set(names)) < len(names) or known_columns(names).keys() >= {"user", "item"}:
        return None
    values = [{row[place] for row in head.rows} - set(MISSING) for place in range(len(names))]
    named = [name for name in names if plain_name(name) in _LABELS]
    two = [name for name, of in zip(names, values, strict=True) if _is_pair(of, labels_told)]
    candidates = named or two
    others = [name for name in names if name not in candidates]
    if len(candidates) != 1 or not others:
        return None
    numeric, unknown = [], set()
    for name, of in zip(names, values, strict=True):
        texts = {value for value in of if not is_number(value)}
        # One odd word among many numbers, such as "?", stands for a missing one.
        if name in others and of and (not texts or (len(texts) == 1 and len(of) > _MANY)):
            numeric.append(name)
            unknown |= texts
    return Layout(
        candidates[0],
        tuple(numeric),
        tuple(name for name in others if name not in numeric),
        head.separator,
        missing=(*MISSING, *sorted(unknown)) if unknown else msgspec.UNSET,
    )


def _is_pair(values: set[str], any_two: bool) -> bool:
    return {value.lower() for value in values} in _PAIRS or (any_two and len(values) == 2)
