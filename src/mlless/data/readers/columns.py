"""Which column of a ratings table is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

USER = ("userid", "user_id", "user")
ITEM = ("itemid", "item_id", "item", "movieid", "movie_id", "movie")
RATING = ("rating",)
FINITE_RATING = "a rating that is a finite number"


@dataclass(frozen=True, slots=True)
class Columns:
    """Places of user, item and rating in a row of ``count`` columns; there may be no rating."""

    user: int
    item: int
    rating: int | None
    count: int


def find_columns(names: Sequence[str]) -> Columns | None:
    """Return where the columns are by their names, in any case; None without a user or an item."""
    known = [name.strip().lower() for name in names]

    def place(wanted: tuple[str, ...]) -> int | None:
        return next((known.index(name) for name in wanted if name in known), None)

    user, item = place(USER), place(ITEM)
    if user is None or item is None:
        return None
    return Columns(user, item, place(RATING), len(names))
