"""The rows of one group, as its files hold them: plain columns, in random order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlless.errors import DatasetError


@dataclass(frozen=True, slots=True)
class RatingsGroup:
    """Ratings: row ``n`` is the rating of ``items[n]`` by ``users[n]``, which are rows of their tables."""

    users: NDArray[np.uint32]
    items: NDArray[np.uint32]
    ratings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ratings)

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return _size(self)

    def part(self, begin: int, end: int) -> RatingsGroup:
        """Return a copy of the rows from ``begin`` up to ``end``."""
        rows = slice(begin, end)
        return RatingsGroup(self.users[rows].copy(), self.items[rows].copy(), self.ratings[rows].copy())


@dataclass(frozen=True, slots=True)
class ClicksGroup:
    """Sparse rows with a label of 0 or 1.

    Row ``n`` holds the entries ``starts[n]:starts[n + 1]``: feature ``indices[e]`` with value ``values[e]``,
    or 1 where ``values`` is None. ``numbers`` are the row numbers in the source, from 0; ``weights`` how much
    each row counts, 1 where it is None.
    """

    labels: NDArray[np.uint8]
    starts: NDArray[np.uint32]
    indices: NDArray[np.uint32]
    values: NDArray[np.float32] | None
    numbers: NDArray[np.uint64]
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return _size(self)

    def part(self, begin: int, end: int) -> ClicksGroup:
        """Return a copy of the rows from ``begin`` up to ``end``."""
        starts = self.starts[begin : end + 1]
        rows, entries = slice(begin, end), slice(starts[0], starts[-1])
        return ClicksGroup(
            self.labels[rows].copy(),
            starts - starts[0],
            self.indices[entries].copy(),
            None if self.values is None else self.values[entries].copy(),
            self.numbers[rows].copy(),
            None if self.weights is None else self.weights[rows].copy(),
        )


Group = RatingsGroup | ClicksGroup


def joined(groups: Sequence[Group]) -> Group:
    """Return the rows of several groups of one kind, at least one, as if they were one group."""
    if ratings := [group for group in groups if isinstance(group, RatingsGroup)]:
        return RatingsGroup(
            np.concatenate([group.users for group in ratings]),
            np.concatenate([group.items for group in ratings]),
            np.concatenate([group.ratings for group in ratings]),
        )
    clicks = [group for group in groups if isinstance(group, ClicksGroup)]
    ends = np.cumsum([len(group.indices) for group in clicks])
    starts = [
        group.starts[1:] + np.uint32(end - len(group.indices))
        for group, end in zip(clicks, ends, strict=True)
    ]
    valued = any(group.values is not None for group in clicks)
    weighted = any(group.weights is not None for group in clicks)
    return ClicksGroup(
        np.concatenate([group.labels for group in clicks]),
        np.concatenate([np.zeros(1, np.uint32), *starts]),
        np.concatenate([group.indices for group in clicks]),
        np.concatenate([_or_ones(group.values, len(group.indices)) for group in clicks]) if valued else None,
        np.concatenate([group.numbers for group in clicks]),
        np.concatenate([_or_ones(group.weights, len(group)) for group in clicks]) if weighted else None,
    )


def _or_ones(numbers: NDArray[np.float32] | None, count: int) -> NDArray[np.float32]:
    return np.ones(count, np.float32) if numbers is None else numbers


_Type = Literal["U8", "U32", "U64", "F32"]
_DTYPES: Final[dict[str, Any]] = {"U8": np.uint8, "U32": np.uint32, "U64": np.uint64, "F32": np.float32}
_NAMES: Final[dict[str, _Type]] = {"|u1": "U8", "<u4": "U32", "<u8": "U64", "<f4": "F32"}


class _Tensor(msgspec.Struct):
    dtype: _Type
    shape: tuple[int]
    data_offsets: tuple[int, int]


_header = msgspec.json.Decoder(dict[str, _Tensor])


def _arrays(group: Group) -> dict[str, NDArray[Any]]:
    named = {field.name: getattr(group, field.name) for field in fields(group)}
    return {name: array for name, array in named.items() if array is not None}


def _size(group: Group) -> int:
    return sum(array.nbytes for array in _arrays(group).values())


def encode_group(group: Group) -> bytes:
    """Return the rows as a safetensors file, the widest columns first: so each of them is aligned."""
    arrays = sorted(_arrays(group).items(), key=lambda named: -named[1].itemsize)
    header, at = {}, 0
    for name, array in arrays:
        header[name] = _Tensor(_NAMES[array.dtype.str], (len(array),), (at, at + array.nbytes))
        at += array.nbytes
    told = msgspec.json.encode(header)
    told += b" " * (-len(told) % 8)
    columns = (np.ascontiguousarray(array).data for _, array in arrays)
    return b"".join((len(told).to_bytes(8, "little"), told, *columns))


def decode_group(kind: str, data: bytes | memoryview, where: str) -> Group:
    """Return the rows in the bytes of a group's safetensors file, as views of these bytes.

    ``kind`` is "ratings" or "clicks". DatasetError, with ``where`` as the place, if the file holds no such
    rows. The ids in it are not checked here: the code that uses them checks them.
    """
    try:
        arrays = _views(data)
        rows = (
            RatingsGroup(**arrays)
            if kind == "ratings"
            else ClicksGroup(values=arrays.pop("values", None), **arrays)
        )
        _check_lengths(rows)
    except (msgspec.DecodeError, ValueError, OverflowError, TypeError) as error:
        raise DatasetError(
            "not the rows of a group", where=where, found=str(error), cure="partition the source again"
        ) from error
    return rows


def _check_lengths(group: Group) -> None:
    """Raise ValueError if the columns do not fit one another."""
    rows = len(group)
    if isinstance(group, RatingsGroup):
        lengths = [(len(group.users), rows), (len(group.items), rows)]
    else:
        entries = len(group.indices)
        lengths = [(len(group.starts), rows + 1), (len(group.numbers), rows)]
        lengths += [(len(group.weights), rows)] if group.weights is not None else []
        lengths += [(len(group.values), entries)] if group.values is not None else []
        lengths += [(int(group.starts[-1]), entries)] if len(group.starts) else []
    if any(found != expected for found, expected in lengths):
        raise ValueError("columns of unequal length")


def _views(data: bytes | memoryview) -> dict[str, NDArray[Any]]:
    """Return the vectors of a safetensors file as views of its bytes: the library's reader copies them."""
    if np.frombuffer(data, np.uint8).ctypes.data % 8:  # a view of something larger may begin anywhere
        data = bytes(data)
    start = 8 + int.from_bytes(data[:8], "little")
    return {
        name: np.frombuffer(data, _DTYPES[tensor.dtype], tensor.shape[0], start + tensor.data_offsets[0])
        for name, tensor in _header.decode(data[8:start]).items()
    }
