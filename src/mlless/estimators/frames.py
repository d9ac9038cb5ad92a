"""Frames with text or categories: they become the features of a file with the same columns.

A frame is read as the Arrow table that it is or gives, by the reader of Parquet files.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import types

from mlless.data.features import HASHED, FeatureMap, Layout
from mlless.data.readers.clicks_table import rows_of_table
from mlless.data.readers.values import is_text
from mlless.data.rows import ColumnRows
from mlless.estimators.base import as_value_error


def columns_of(frame: Any, y: Any) -> FeatureMap | None:
    """Return how a frame's columns become features, without scales; None if all are numbers already.

    Anything but a frame is None, too. The label has the name of ``y``, as it would in a file.
    """
    if not is_frame(frame) or all(map(_numeric, frame.dtypes)):
        return None
    fields = list(_table(frame).schema)
    categorical = tuple(field.name for field in fields if _textual(field))
    if not categorical:
        return None
    label = str(getattr(y, "name", None) or "label")
    while any(field.name == label for field in fields):
        label += "_"
    layout = Layout(label, tuple(field.name for field in fields if not _textual(field)), categorical)
    with as_value_error():
        layout.check("X")
    return FeatureMap(1, layout, HASHED, 0, "standard", ())


def with_labels(columns: FeatureMap, classes: NDArray[Any]) -> FeatureMap:
    """Return the map with the names of the classes, where they have names, for files with such labels."""
    if classes.dtype.kind in "biuf":
        return columns
    layout = msgspec.structs.replace(columns.layout, labels=(str(classes[0]), str(classes[1])))
    return msgspec.structs.replace(columns, layout=layout)


def classes_of(columns: FeatureMap | None) -> NDArray[Any]:
    """Return the classes of a data set whose features are made of ``columns``."""
    return np.array(columns.layout.labels if columns and columns.layout.labels else [0, 1])


def rows_of_frame(frame: Any, features: FeatureMap) -> ColumnRows:
    """Return the rows of a frame that has the columns of ``features``; their labels are 0."""
    if not is_frame(frame):
        raise ValueError(
            f"X must be a frame of pandas or Polars, as in fit, found {type(frame).__name__}: its columns "
            f"are {', '.join((*features.layout.numeric, *features.layout.categorical))}"
        )
    if not frame.shape[0]:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={frame.shape}) while a minimum of 1 is required."
        )
    with as_value_error():
        return rows_of_table(_table(frame), features, "X")


def is_frame(data: Any) -> bool:
    """Return whether ``data`` has columns with types of their own."""
    return hasattr(data, "columns") and hasattr(data, "dtypes")


def _numeric(kind: Any) -> bool:
    """Return whether a type of pandas or Polars is that of numbers or truth values."""
    if hasattr(kind, "kind"):
        return kind.kind in "biuf"
    return bool(kind.is_numeric()) or str(kind) == "Boolean"


def _table(frame: Any) -> pyarrow.Table:
    try:
        table = pyarrow.table(frame)
    except pyarrow.ArrowException as error:
        raise ValueError(f"X holds a column of mixed or unknown types: {error}") from error
    return table.select(range(frame.shape[1]))  # what else there is, is the index of pandas


def _textual(field: pyarrow.Field) -> bool:
    kind = field.type
    if is_text(kind) or types.is_dictionary(kind) or types.is_null(kind):
        return True
    if any(test(kind) for test in (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal)):
        return False
    raise ValueError(f"X must have columns of numbers, text or categories, column {field.name} is of {kind}")
