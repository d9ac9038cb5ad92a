"""Ratings as the estimators take them: two columns of ids, a sparse matrix, or a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from mlless.data.dataset import Dataset
from mlless.data.groups import RatingsGroup
from mlless.data.ids import Ids, ids_of, join
from mlless.data.readers.columns import ITEM, USER, plain_name
from mlless.estimators.base import as_value_error

Ratings = NDArray[np.float32]


def pairs_of(data: Any) -> tuple[Ids, Ids]:
    """Return the users and items of a table whose two columns they are."""
    shape = getattr(data, "shape", None) or np.shape(data)
    if len(shape) != 2 or shape[1] != 2:
        raise ValueError(
            f"X must have two columns, user and item, or be a sparse matrix; its shape is {shape}"
        )
    if hasattr(data, "columns") and hasattr(data, "__getitem__"):  # a frame: each column keeps its own type
        user, item = _named(list(data.columns))
        columns = data[user], data[item]
    else:
        columns = tuple(np.asarray(data).T)
    with as_value_error():
        return ids_of(columns[0], "users"), ids_of(columns[1], "items")


def _named(columns: list[Any]) -> list[Any]:
    """Return the columns of users and items: by their names if these tell, else in their order."""
    first, second = (plain_name(str(name)) for name in columns)
    return columns[::-1] if first in ITEM and second in USER else columns


def names_of(data: Any) -> tuple[str, ...] | None:
    """Return how a frame calls the columns of users and items, None where not both names are text."""
    columns = list(getattr(data, "columns", ()))
    return tuple(_named(columns)) if [type(name) for name in columns] == [str, str] else None


def check_names(names: tuple[str, ...] | None, fitted: tuple[str, ...] | None) -> None:
    """Raise ValueError if a frame calls its columns otherwise than the ``fitted`` one did."""
    if names and fitted and names != fitted:
        raise ValueError(
            "The feature names should match those that were passed during fit: "
            f"expected {', '.join(fitted)}, found {', '.join(names)}"
        )


def ratings_of(data: Any, y: Any) -> tuple[Ids, Ids, Ratings]:
    """Return users, items and ratings of ``fit``'s arguments; every stored entry of a matrix is a rating."""
    if scipy.sparse.issparse(data):
        if y is not None:
            raise ValueError("a sparse matrix holds its ratings: leave y out")
        table = data.tocoo()
        users, items, values = table.row.astype(np.int64), table.col.astype(np.int64), table.data
    else:
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None: a rating for each pair in X")
        users, items = pairs_of(data)
        check_consistent_length(users, y)
        values = column_or_1d(y, warn=True)
    values = check_array(values, ensure_2d=False, dtype=np.float64, input_name="y")
    with np.errstate(over="ignore"):
        ratings = values.astype(np.float32)
    if not np.isfinite(ratings).all():
        raise ValueError("y holds values beyond the range of float32: scale it")
    return users, items, ratings


def ratings_in(dataset: Dataset, *, part: str = "all") -> tuple[Ids, Ids, Ratings]:
    """Return users, items (original ids) and ratings of a partitioned data set."""
    manifest, ids = dataset.manifest, dataset.ids()
    files = manifest.train if part == "train" else manifest.train + manifest.validation
    pieces = []
    for group in dataset.groups(files):
        assert isinstance(group, RatingsGroup)
        pieces.append((ids.users[group.users], ids.items[group.items], group.ratings))
    users, items, ratings = zip(*pieces, strict=True)
    return join(users), join(items), np.concatenate(ratings)
