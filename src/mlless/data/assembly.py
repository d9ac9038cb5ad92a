"""Mini-batches from the rows of groups, ready for the kernels.

A mini-batch names each table row it touches once, in ascending order, and refers to them by position in
that list. A kernel therefore gathers every row once, and its update comes out in row order without sorting.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mlless import kernels
from mlless.data.groups import ClicksGroup, Group, RatingsGroup
from mlless.data.manifest import Clicks, Ratings
from mlless.errors import DatasetError, UsageError
from mlless.kernels.arrays import ClicksArrays, RatingsArrays

_MOST = 2**32 - 1  # entries that starts of 32 bits can count
Places = NDArray[np.int64]
_Kind = TypeVar("_Kind", bound=np.generic)


def assemble(
    group: Group, begins: Places, ends: Places, shape: Ratings | Clicks
) -> RatingsArrays | ClicksArrays:
    """Return one mini-batch of the rows ``begins[i]:ends[i]`` of a group, or of several joined groups.

    Ratings are grouped by user, and those of a user keep their order. Clicks keep their order. Ids within the
    mini-batch take 16 bits if that is surely enough, else 32.

    Raises
    ------
    DatasetError
        The rows are damaged: there are too few, or they name rows of tables that ``shape`` does not have.
    UsageError
        The mini-batch has more than 2**32 - 1 entries.
    """
    try:
        if isinstance(group, RatingsGroup):
            assert isinstance(shape, Ratings)
            return _ratings(group, begins, ends, shape)
        assert isinstance(shape, Clicks)
        return _clicks(group, begins, ends, shape)
    except (ValueError, IndexError) as error:
        raise DatasetError(
            "a group of rows is damaged", found=str(error), cure="partition the source again"
        ) from error


def _ratings(group: RatingsGroup, begins: Places, ends: Places, shape: Ratings) -> RatingsArrays:
    count = _countable(int((ends - begins).sum()))
    users, items = min(count, shape.users), min(count, shape.items)
    local = _local(items, count)
    out = RatingsArrays(
        np.empty(users, np.uint32),
        np.empty(users + 1, np.uint32),
        np.empty(items, np.uint32),
        local,
        local.itemsize,
        np.empty(count, np.float32),
    )
    users, items = kernels.assemble_ratings(
        group.users, group.items, group.ratings, begins, ends, shape.users, shape.items, out
    )
    return out._replace(
        users=_first(out.users, users),
        starts=_first(out.starts, users + 1),
        items=_first(out.items, items),
    )


def _clicks(group: ClicksGroup, begins: Places, ends: Places, shape: Clicks) -> ClicksArrays:
    rows = _countable(int((ends - begins).sum()))
    count = _countable(int(group.starts[ends].sum(dtype=np.int64) - group.starts[begins].sum(dtype=np.int64)))
    features = min(count, shape.table_rows)
    local = _local(features, count)
    out = ClicksArrays(
        np.empty(rows, np.uint8),
        np.empty(rows + 1, np.uint32),
        np.empty(features, np.uint32),
        local,
        local.itemsize,
        None if group.values is None else np.empty(count, np.float32),
        None if group.weights is None else np.empty(rows, np.float32),
    )
    columns = group.labels, group.starts, group.indices, group.values, group.weights
    features = kernels.assemble_clicks(*columns, begins, ends, shape.table_rows, out)
    return out._replace(features=_first(out.features, features))


def _countable(entries: int) -> int:
    if entries > _MOST:
        raise UsageError(
            "a mini-batch is too large",
            expected=f"at most {_MOST:,} entries",
            found=f"{entries:,}",
            cure="ask for a smaller mini-batch",
        )
    return entries


def _local(distinct: int, count: int) -> NDArray[np.uint16] | NDArray[np.uint32]:
    return np.empty(count, np.uint16) if distinct <= 1 << 16 else np.empty(count, np.uint32)


def _first(array: NDArray[_Kind], count: int) -> NDArray[_Kind]:
    """Return the first so many, without the memory of the others."""
    return array if count == len(array) else array[:count].copy()
