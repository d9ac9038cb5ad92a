"""Mini-batches from rows of many groups, ready for the kernels.

A mini-batch names each table row it touches once, in ascending order, and refers to them by position in
that list. A kernel therefore gathers every row once, and its update comes out in row order without sorting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

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
    groups: Sequence[Group], begins: Places, ends: Places, shape: Ratings | Clicks
) -> RatingsArrays | ClicksArrays:
    """Return one mini-batch of the rows ``begins[i]:ends[i]`` of each group.

    Ratings are grouped by user, a user's in the order of groups and rows; clicks keep that order. Ids within
    the mini-batch take 16 bits where that is sure to be enough, else 32.

    Raises
    ------
    DatasetError
        If a group is damaged: it has no such rows, or names what ``shape`` does not have.
    UsageError
        If the mini-batch has more than 2**32 - 1 entries.
    """
    filled = np.flatnonzero(begins != ends)
    groups, begins, ends = [groups[n] for n in filled.tolist()], begins[filled], ends[filled]
    try:
        if isinstance(shape, Ratings):
            return _ratings(cast(list[RatingsGroup], groups), begins, ends, shape)
        return _clicks(cast(list[ClicksGroup], groups), begins, ends, shape)
    except (ValueError, IndexError) as error:
        raise DatasetError(
            "a group of rows is damaged", found=str(error), cure="partition the source again"
        ) from error


def _ratings(groups: list[RatingsGroup], begins: Places, ends: Places, shape: Ratings) -> RatingsArrays:
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
    sources = [(group.users, group.items, group.ratings) for group in groups]
    users, items = kernels.assemble_ratings(sources, begins, ends, shape.users, shape.items, out)
    return out._replace(
        users=_first(out.users, users),
        starts=_first(out.starts, users + 1),
        items=_first(out.items, items),
    )


def _clicks(groups: list[ClicksGroup], begins: Places, ends: Places, shape: Clicks) -> ClicksArrays:
    sources = [(one.labels, one.starts, one.indices, one.values, one.weights) for one in groups]
    rows = _countable(int((ends - begins).sum()))
    segments = zip(groups, begins.tolist(), ends.tolist(), strict=True)
    count = _countable(
        sum(group.starts.item(end) - group.starts.item(begin) for group, begin, end in segments)
    )
    features = min(count, shape.table_rows)
    local = _local(features, count)
    out = ClicksArrays(
        np.empty(rows, np.uint8),
        np.empty(rows + 1, np.uint32),
        np.empty(features, np.uint32),
        local,
        local.itemsize,
        np.empty(count, np.float32) if any(source[3] is not None for source in sources) else None,
        np.empty(rows, np.float32) if any(source[4] is not None for source in sources) else None,
    )
    features = kernels.assemble_clicks(sources, begins, ends, shape.table_rows, out)
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
