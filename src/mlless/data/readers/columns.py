"""PURE: which column of a ratings table is what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlless.errors import InputError, UsageError

USER = (
    *("userid", "user", "uid", "usernumber", "username", "customerid", "customer", "reviewerid", "reviewer"),
    *("visitorid", "memberid", "accountid", "personid"),
)
ITEM = (
    *("itemid", "item", "iid", "movieid", "movie", "filmid", "film", "productid", "product", "asin"),
    *("parentasin", "isbn", "bookid", "book", "gameid", "game", "songid", "song", "trackid", "track"),
    *("artistid", "artist", "animeid", "anime", "jokeid", "joke", "recipeid", "businessid"),
)
RATING = ("rating", "ratings", "score", "stars", "overall", "bookrating")
ROLES: Mapping[str, Sequence[str]] = {"user": USER, "item": ITEM, "rating": RATING}
FINITE_RATING = "a rating that is a finite number"
_KNOWN = (
    "usual names, such as userId, uid, customer_id or reviewerID for users; itemId, movieId, product_id, "
    "asin or isbn for items; rating, score, stars or overall for ratings"
)


@dataclass(frozen=True, slots=True)
class Columns:
    """The places of user, item and rating in a row; there may be no rating."""

    user: int
    item: int
    rating: int | None

    @property
    def places(self) -> list[int]:
        """The places that there are, in this order."""
        return [self.user, self.item] if self.rating is None else [self.user, self.item, self.rating]


def plain_name(name: str) -> str:
    """Return a column's name without case and punctuation."""
    return re.sub(r"[^0-9a-z]", "", name.lower())


def known_columns(names: Sequence[str]) -> dict[str, int]:
    """Return where the columns are whose names are known, by their role."""
    plain = [plain_name(name) for name in names]
    places = {
        role: next((plain.index(name) for name in known if name in plain), None)
        for role, known in ROLES.items()
    }
    return {role: place for role, place in places.items() if place is not None}


def find_columns(names: Sequence[str], given: Mapping[str, str | int], where: str, *, rated: bool) -> Columns:
    """Return where the columns are: as ``given``, by name or number from 1, else by their known names.

    UsageError for a given one that is not there; InputError if one is not found, or its name is there twice.
    With ``rated`` a table needs a rating.
    """
    found = known_columns(names)
    found.update({role: _place(role, column, names, where) for role, column in given.items()})
    wanted = [role for role in ROLES if rated or role != "rating"]
    missing = [role for role in wanted if role not in found]
    if missing:
        raise _unknown(names, found, missing, where)
    twice = sorted({names[found[role]] for role in wanted if names.count(names[found[role]]) > 1})
    by_number = [role for role in wanted if isinstance(given.get(role), int)]
    if twice and len(by_number) < len(wanted):
        raise InputError(
            "columns of one name",
            where=where,
            found=f"{', '.join(twice)} more than once among {', '.join(names)}",
            cure=f"say which is meant by their numbers: {options(dict.fromkeys(wanted, 'N'))}",
        )
    if len({found[role] for role in wanted}) < len(wanted):
        raise UsageError("one column for two purposes", where=where, found=_told(names, found, wanted))
    return Columns(found["user"], found["item"], found["rating"] if rated else None)


def options(columns: Mapping[str, str | int]) -> str:
    """Return the options that give these columns."""
    return " ".join(f"--{role}-column {_quoted(str(column))}" for role, column in columns.items())


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) else "'" + name.replace("'", "'\\''") + "'"


def _place(role: str, column: str | int, names: Sequence[str], where: str) -> int:
    text = str(column)
    if text in names:
        return names.index(text)
    if text.isdigit() and 1 <= int(text) <= len(names):
        return int(text) - 1
    plain = [plain_name(name) for name in names]
    if not text.isdigit() and plain_name(text) in plain:
        return plain.index(plain_name(text))
    raise UsageError(
        f"no such column as --{role}-column {text}",
        where=where,
        expected=f"one of its columns, or a number from 1 to {len(names)}",
        found=", ".join(names),
    )


def _unknown(
    names: Sequence[str], found: Mapping[str, int], missing: Sequence[str], where: str
) -> InputError:
    left = [name for place, name in enumerate(names) if place not in found.values()]
    guess = left[0] if len(left) == len(missing) == 1 else "NAME"
    return InputError(
        f"no column is known as the {' and the '.join(missing)}",
        where=where,
        expected=_KNOWN,
        found=", ".join(names) or "no columns",
        cure=f"say which it is: {options(dict.fromkeys(missing, guess))}; of clicks, mlless partition takes "
        "labels (--labels no,yes) or a description (--columns)",
    )


def _told(names: Sequence[str], found: Mapping[str, int], wanted: Sequence[str]) -> str:
    return ", ".join(f"{role} {names[found[role]]}" for role in wanted)
