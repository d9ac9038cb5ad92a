"""What a mini-batch is: grouped, with batch-local ids, ready for the kernels; and its file form.

A batch names each table row it touches once, in ascending order (``users``, ``items``,
``features``), and refers to them by position in that list. A kernel therefore gathers every row
once, and its update comes out in row order without sorting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from mlless.errors import DatasetError
from mlless.kernels.arrays import ClicksArrays, RatingsArrays

_DENSE = 16  # ids up to so many times their number are looked up in a table

LocalIds = NDArray[np.uint16] | NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class RatingsBatch:
    """Ratings grouped by user.

    ``users[g]`` gave the ratings ``user_starts[g]:user_starts[g + 1]``; rating ``n`` is of
    ``items[item_index[n]]``.
    """

    users: NDArray[np.uint32]
    user_starts: NDArray[np.uint32]
    items: NDArray[np.uint32]
    item_index: LocalIds
    ratings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ratings)

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return _size(self)

    @property
    def arrays(self) -> RatingsArrays:
        """The batch as the kernels take it."""
        index = self.item_index
        return RatingsArrays(self.users, self.user_starts, self.items, index, index.itemsize, self.ratings)

    def rows(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Return the table rows of the user and of the item of each rating."""
        return np.repeat(self.users, np.diff(self.user_starts)), self.items[self.item_index]

    @property
    def touched(self) -> tuple[int, int]:
        """How many rows of the tables users and items a step on this batch moves."""
        return len(self.users), len(self.items)


@dataclass(frozen=True, slots=True)
class ClicksBatch:
    """Rows of sparse features with a label of 0 or 1.

    Row ``n`` holds the entries ``row_starts[n]:row_starts[n + 1]``: feature
    ``features[feature_index[e]]`` with value ``values[e]``, or 1 where ``values`` is None.
    ``rows`` are the row numbers in the source, from 0; ``weights`` how much each row counts, 1
    where it is None.
    """

    labels: NDArray[np.uint8]
    row_starts: NDArray[np.uint32]
    features: NDArray[np.uint32]
    feature_index: LocalIds
    values: NDArray[np.float32] | None
    rows: NDArray[np.uint64]
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return _size(self)

    @property
    def arrays(self) -> ClicksArrays:
        """The batch as the kernels take it."""
        index = self.feature_index
        return ClicksArrays(
            self.labels, self.row_starts, self.features, index, index.itemsize, self.values, self.weights
        )

    @property
    def touched(self) -> tuple[int, int]:
        """How many rows of the tables features and intercept a step on this batch moves."""
        return len(self.features), 1


Batch = RatingsBatch | ClicksBatch


def joined(batches: Sequence[Batch]) -> Batch:
    """Return ratings of several mini-batches, in their order, as one; a single one of any kind as it is."""
    if len(batches) == 1:
        return batches[0]
    ratings = [batch for batch in batches if isinstance(batch, RatingsBatch)]
    assert len(ratings) == len(batches), "only mini-batches of ratings are joined"
    users = [np.repeat(one.users, np.diff(one.user_starts)) for one in ratings]
    items = [one.items[one.item_index] for one in ratings]
    return group_ratings(
        np.concatenate(users).astype(np.int64),
        np.concatenate(items).astype(np.int64),
        np.concatenate([one.ratings for one in ratings]),
    )


def _arrays(batch: Batch) -> dict[str, NDArray[Any]]:
    named = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: array for name, array in named.items() if array is not None}


def _size(batch: Batch) -> int:
    return sum(array.nbytes for array in _arrays(batch).values())


def encode_batch(batch: Batch) -> bytes:
    """Return the batch as a safetensors file."""
    return safetensors.numpy.save(_arrays(batch))


def decode_batch(kind: str, data: bytes | memoryview, where: str) -> Batch:
    """Return the batch of ``kind`` ("ratings" or "clicks") in a safetensors file's bytes.

    Raises DatasetError, with ``where`` as the place, if the file is not such a batch. Ranges are
    not checked here: the kernels check every index they follow.
    """
    try:
        arrays = _views(data)
        if kind == "ratings":
            return RatingsBatch(**arrays)
        return ClicksBatch(values=arrays.pop("values", None), **arrays)
    except (msgspec.DecodeError, ValueError, OverflowError, TypeError) as error:
        raise DatasetError(
            "not a mini-batch", where=where, found=str(error), cure="partition the source again"
        ) from error


class _Tensor(msgspec.Struct):
    dtype: Literal["U8", "U16", "U32", "U64", "F32"]
    shape: tuple[int]
    data_offsets: tuple[int, int]


_header = msgspec.json.Decoder(dict[str, _Tensor])
_DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "F32": np.float32}


def _views(data: bytes | memoryview) -> dict[str, NDArray[Any]]:
    """Return the vectors of a safetensors file as views of its bytes.

    The library's reader copies each of them, a large part of the time that a step's mini-batch takes.
    """
    if np.frombuffer(data, np.uint8).ctypes.data % 8:  # a view of something larger may begin anywhere
        data = bytes(data)
    start = 8 + int.from_bytes(data[:8], "little")
    return {
        name: np.frombuffer(data, _DTYPES[tensor.dtype], tensor.shape[0], start + tensor.data_offsets[0])
        for name, tensor in _header.decode(data[8:start]).items()
    }


def local_ids(ids: NDArray[np.int64]) -> tuple[NDArray[np.uint32], LocalIds]:
    """Return the distinct ``ids`` in ascending order, and for each id its place among them."""
    top = int(ids.max(initial=-1)) + 1
    if top <= _DENSE * len(ids):  # a table of all that there might be is quicker than a sort
        marks = np.zeros(top, np.bool_)
        marks[ids] = True
        unique = np.flatnonzero(marks)
        places = np.empty(top, np.uint32)
        places[unique] = np.arange(len(unique), dtype=np.uint32)
        inverse: NDArray[Any] = places[ids]
    else:
        unique, inverse = np.unique(ids, return_inverse=True)
    if len(unique) <= 1 << 16:
        return unique.astype(np.uint32), inverse.astype(np.uint16)
    return unique.astype(np.uint32), inverse.astype(np.uint32)


def group_ratings(
    users: NDArray[np.int64], items: NDArray[np.int64], ratings: NDArray[np.float32]
) -> RatingsBatch:
    """Return the rows as a batch grouped by user; rows of one user keep their order."""
    distinct, place = local_ids(users)
    order = np.argsort(place, kind="stable")  # of 16 bits each it takes one pass over them
    counts = np.bincount(place, minlength=len(distinct))
    unique_items, item_index = local_ids(items[order])
    return RatingsBatch(
        users=distinct,
        user_starts=np.append(0, np.cumsum(counts)).astype(np.uint32),
        items=unique_items,
        item_index=item_index,
        ratings=ratings[order].astype(np.float32),
    )


def pack_clicks(
    labels: NDArray[np.uint8],
    row_starts: NDArray[np.int64],
    indices: NDArray[np.int64],
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> ClicksBatch:
    """Return CSR rows as a batch with batch-local feature ids; values that are all 1 are left out."""
    features, feature_index = local_ids(indices)
    return ClicksBatch(
        labels=labels.astype(np.uint8),
        row_starts=row_starts.astype(np.uint32),
        features=features,
        feature_index=feature_index,
        values=None if bool(np.all(values == 1.0)) else values.astype(np.float32),
        rows=rows.astype(np.uint64),
    )
