"""PURE: ids of users and items: whole numbers or any text, and the table row of each.

What an id is depends on itself alone, never on its neighbours. Text that writes a whole number from 0 to
2^63 - 1 in the plain way is that number: ``12``, and ``12.0`` as frames write it. All other text is
itself: ``007``, ``u-17``. A column of ids is an int64 array if all of them are numbers, else an object
array of str in which numbers are written the plain way. So the same id is equal in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlless.errors import DatasetError, UsageError

Numbers = NDArray[np.int64]
Texts = NDArray[np.object_]
Ids = Numbers | Texts
Rows = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)

BIGGEST = 2**63 - 1
_WHOLE = re.compile(r"(0|[1-9][0-9]{0,18})(?:\.0+)?")
_EXACT = 2.0**53  # up to here every whole number is a float64
_SMALL, _SPARE = 1 << 20, 4  # places of a table of rows by number: so many, or so many for each id
NO_IDS: Numbers = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class RatingIds:
    """The original id of each table row: ``users[n]`` is the id of row ``n`` of the users."""

    users: Ids
    items: Ids


def ids_of(values: Any, what: str = "ids") -> Ids:
    """Return the ids that ``values`` hold: text, or whole numbers from 0 of any type.

    UsageError, which calls them ``what``, where one is neither: a missing value, say, or a fraction.
    """
    array = np.asarray(values)
    kind = array.dtype.kind
    if kind == "f" or (kind in "iub" and (kind != "u" or not array.size or array.max() <= BIGGEST)):
        if kind == "f" and not ((array == np.floor(array)) & (np.abs(array) < _EXACT)).all():
            expected = "whole numbers, below 2^53 where they come as floats, or text"
            raise UsageError(f"{what} are no ids", expected=expected, found=f"others as {array.dtype}")
        if array.size and array.min() < 0:
            raise _no_id(what, array.min().item())
        return array.astype(np.int64)
    plain = _Plain(what)
    try:
        texts = np.array(list(map(plain.__getitem__, array.ravel().tolist())), np.object_)
    except TypeError as error:  # it cannot be looked up
        raise _no_id(what, str(error)) from error
    return compact(texts).reshape(array.shape)


def ids_of_text(texts: Iterable[str]) -> Ids:
    """Return the ids that ``texts`` write; white space around an id is no part of it."""
    return compact(np.array(list(map(_plain, texts)), np.object_))


def _plain(text: str) -> str:
    """Return the one way in which the id that ``text`` writes is written."""
    text = text.strip()
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole and int(whole[1]) <= BIGGEST else text


class _Plain(dict[Any, str]):
    """The ids that values stand for, each found out once."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __missing__(self, value: Any) -> str:
        plain = ""
        if isinstance(value, str):
            plain = _plain(value)
        elif isinstance(value, int | np.integer) or (
            isinstance(value, float | np.floating) and value.is_integer() and value < _EXACT
        ):
            plain = str(int(value)) if value >= 0 else ""
        if not plain:
            raise _no_id(self._what, value)
        self[value] = plain
        return plain


def _no_id(what: str, value: object) -> UsageError:
    return UsageError(
        f"one of the {what} is no id",
        expected="a whole number from 0, or text",
        found=repr(value),
        cure="leave rows without an id out, and turn ids of another type into text",
    )


def _is_whole(plain: str) -> bool:
    whole = _WHOLE.fullmatch(plain)
    return whole is not None and whole[1] == plain and int(plain) <= BIGGEST


def compact(ids: Ids) -> Ids:
    """Return the ids as numbers if all of them are."""
    if ids.dtype != np.object_:
        return ids
    texts = ids.tolist()
    distinct = set(texts)
    if not all(map(_is_whole, distinct)):
        return ids
    numbers = {text: int(text) for text in distinct}
    return np.fromiter(map(numbers.__getitem__, texts), np.int64, len(texts))


def as_text(ids: Ids) -> Texts:
    """Return the ids as str."""
    texts = ids.tolist() if ids.dtype == np.object_ else map(str, ids.tolist())
    return np.array(list(texts), np.object_)


def join(pieces: Sequence[Ids]) -> Ids:
    """Return the ids of all ``pieces``, one after the other."""
    if any(piece.dtype == np.object_ for piece in pieces):
        return np.concatenate([as_text(piece) for piece in pieces])
    return np.concatenate([NO_IDS, *(piece.astype(np.int64, copy=False) for piece in pieces)])


class IdIndex:
    """The row of each of many ids; further ids get further rows.

    Small numbers are looked up in an array, others and text in a dictionary: as fast as it gets, and memory
    in proportion to the ids.
    """

    def __init__(self, ids: Ids = NO_IDS) -> None:
        """Give ``ids``, each of which is there once, the rows from 0 on."""
        self._pieces: list[Ids] = [NO_IDS]
        self._count = 0
        self._text = False  # whether one of the ids is not a number; all are then held as str
        self._by_number: Rows | None = np.full(1, -1, np.int64)  # the last place stands for all beyond
        self._by_id: dict[Any, int] = {}
        ids = self._admitted(ids)
        self._append(ids)
        if (self.find(ids) != np.arange(len(ids))).any():
            raise DatasetError("an id stands for two rows", cure="partition the source, or train, again")

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> Ids:
        """The id of each row."""
        self._pieces = [join(self._pieces)]
        return self._pieces[0]

    def find(self, ids: Ids) -> Rows:
        """Return the row of each id, -1 where it is unknown."""
        if self._text:
            ids = as_text(ids)
        elif ids.dtype == np.object_:
            ids = np.array([int(one) if _is_whole(one) else -1 for one in ids.tolist()], np.int64)
        if self._by_number is not None:
            rows: Rows = self._by_number[np.minimum(ids, len(self._by_number) - 1)]
            return rows
        return np.fromiter(map(self._by_id.get, ids.tolist(), repeat(-1)), np.int64, len(ids))

    def add(self, ids: Ids) -> Rows:
        """Return the row of each id; unknown ones get the next rows, in the order in which they come."""
        ids = self._admitted(ids)
        rows = self.find(ids)
        unknown = rows < 0
        if unknown.any():
            missing = ids[unknown]
            self._append(self._distinct(missing))
            rows[unknown] = self.find(missing)
        return rows

    def grow(self, ids: Ids) -> Rows:
        """Return the row of each id; unknown ones get the next rows, in ascending order."""
        known = len(self)
        rows = self.add(ids)
        return self.sort(known)[rows] if len(self) > known else rows

    def sort(self, first: int = 0) -> Rows:
        """Give the ids from row ``first`` on new rows, in ascending order; return the new row of each row."""
        return self.renumber(self.order(first))

    def order(self, first: int = 0) -> Rows:
        """Return all rows, those from ``first`` on in ascending order of their ids."""
        rows = np.argsort(self.ids[first:], kind="stable") + first
        return np.concatenate([np.arange(first), rows])

    def renumber(self, order: Rows) -> Rows:
        """Give the id of row ``order[n]`` the row ``n``; return the new row of each row."""
        ids, rows = self.ids[order], np.empty(self._count, np.int64)
        rows[order] = np.arange(self._count)
        self._pieces, self._count = [NO_IDS], 0
        self._append(ids)
        return rows

    def _admitted(self, ids: Ids) -> Ids:
        """Return ``ids`` as they are held here, which may have to change for their sake."""
        if not self._text:
            ids = compact(ids)
            self._text = ids.dtype == np.object_
            if self._text:
                self._by_number, self._by_id = None, dict(zip(as_text(self.ids).tolist(), count()))
        if self._text:
            return as_text(ids)
        if self._by_number is not None and len(ids):
            least = int(ids.max()) + 2
            if least > max(_SMALL, _SPARE * (self._count + len(ids))):
                self._by_number, self._by_id = None, dict(zip(self.ids.tolist(), count()))
            elif least > len(self._by_number):
                grown = np.full(max(least, 2 * len(self._by_number)), -1, np.int64)
                grown[: len(self._by_number)] = self._by_number
                self._by_number = grown
        return ids

    def _append(self, ids: Ids) -> None:
        """Give ``ids`` the next rows."""
        rows = np.arange(self._count, self._count + len(ids))
        if self._by_number is not None:
            self._by_number[ids] = rows
        else:
            self._by_id.update(zip(ids.tolist(), rows.tolist(), strict=True))
        self._pieces.append(ids)
        self._count += len(ids)

    def _distinct(self, ids: Ids) -> Ids:
        """Return each of these unknown ids once, in the order in which they come."""
        if ids.dtype == np.object_:
            return np.array(list(dict.fromkeys(ids.tolist())), np.object_)
        if self._by_number is None:
            return np.array(list(dict.fromkeys(ids.tolist())), np.int64)
        places = np.arange(len(ids))
        self._by_number[ids[::-1]] = places[::-1]  # the first of each comes last, and stays
        distinct: Ids = ids[self._by_number[ids] == places]
        return distinct


def pack(name: str, ids: Ids) -> dict[str, NDArray[np.generic]]:
    """Return ids as arrays for a file: ``name``, or for text ``name.text`` (UTF-8) and ``name.ends``."""
    if ids.dtype != np.object_:
        return {name: ids}
    encoded = [text.encode() for text in ids.tolist()]
    ends = np.cumsum(list(map(len, encoded)), dtype=np.int64)
    return {f"{name}.text": np.frombuffer(b"".join(encoded), np.uint8), f"{name}.ends": ends}


def unpack(arrays: Mapping[str, NDArray[np.generic]], name: str, rows: int) -> Ids:
    """Return the ``rows`` ids that `pack` made the arrays of; ValueError if these are not such arrays."""
    ids: Ids
    if name in arrays:
        ids = _array(arrays, name, np.int64)
        if ids.min(initial=0) < 0:
            raise ValueError(f"{name} holds {ids.min()}")
    else:
        data, ends = (
            _array(arrays, f"{name}.text", np.uint8).tobytes(),
            _array(arrays, f"{name}.ends", np.int64),
        )
        starts = np.append(0, ends)[:-1]
        if (starts >= ends).any() or len(data) != ends.max(initial=0):
            raise ValueError(f"{name}.ends do not rise from 0 to {len(data)}")
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        ids = np.array([data[start:end].decode() for start, end in spans], np.object_)
    if len(ids) != rows:
        raise ValueError(f"{len(ids)} {name}, expected {rows}")
    return ids


def _array(arrays: Mapping[str, NDArray[np.generic]], name: str, kind: type[T]) -> NDArray[T]:
    array = arrays.get(name)
    if array is None or array.dtype != kind or array.ndim != 1:
        found = "none" if array is None else f"{array.dtype} {array.shape}"
        raise ValueError(f"expected an array {name} of {kind.__name__}, found {found}")
    return array.astype(kind, copy=False)
