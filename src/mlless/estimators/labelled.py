"""Labelled rows of features as `LogisticRegression` takes them, on their way to a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _check_sample_weight

from mlless.data.rows import ClicksRows

_MOST_FEATURES = 2**31


def rows_of(X: Any, labels: NDArray[np.uint8]) -> ClicksRows:
    """Return the rows of an array or CSR matrix, in float32 and without the zeros of a dense one."""
    matrix = scipy.sparse.csr_array(X)
    if matrix.shape[1] > _MOST_FEATURES:
        raise ValueError(f"X must have at most {_MOST_FEATURES} features, found {matrix.shape[1]}")
    with np.errstate(over="ignore"):
        values = matrix.data.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("X holds values beyond the range of float32: scale it")
    return ClicksRows(
        labels,
        np.arange(len(labels), dtype=np.int64),
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.uint32),
        values,
    )


def matrix_of(rows: ClicksRows, features: int) -> scipy.sparse.csr_array:
    """Return rows as a CSR array."""
    entries = rows.values, rows.indices.astype(np.int64), rows.starts
    return scipy.sparse.csr_array(entries, shape=(len(rows), features))


def weights_of(y: NDArray[Any], weights: Any, class_weight: Any) -> NDArray[np.float64] | None:
    """Return how much each row counts, by itself and by its class; None where all count alike."""
    if weights is None and class_weight is None:
        return None
    if isinstance(class_weight, Mapping) and min(class_weight.values(), default=0) < 0:
        raise ValueError(f"class_weight must not be negative, got {class_weight}")
    weights = _check_sample_weight(weights, y, dtype=np.float64, ensure_non_negative=True)
    counts: NDArray[np.float64] = weights * compute_sample_weight(class_weight, y)
    return counts


def relative(weights: NDArray[np.float64] | None) -> NDArray[np.float32] | None:
    """Return weights that are 1 on average, None where all are the same."""
    if weights is None or weights.min() == weights.max():
        return None
    shares: NDArray[np.float32] = (weights / weights.mean()).astype(np.float32)
    return shares


def two_classes(classes: NDArray[Any], y: Any = None) -> NDArray[Any]:
    """Return ``classes`` if they are two; ValueError with the way out if they are not."""
    if len(classes) > 2:
        kind = "multiclass" if y is None else type_of_target(y)
        raise ValueError(
            f"Only binary classification is supported. The type of the target is {kind}, of {len(classes)} "
            "classes. For more than two use sklearn.multiclass.OneVsRestClassifier(LogisticRegression())"
        )
    if len(classes) < 2:
        raise ValueError(f"needs two classes, but the data holds one class: {classes.tolist()}")
    return classes


def labels_of(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.uint8]:
    """Return ``y`` as 0 and 1; ValueError if it holds others than the two ``classes``."""
    known = np.isin(y, classes)
    if not known.all():
        raise ValueError(
            f"y holds classes that were not there at the start: expected {classes.tolist()}, "
            f"found {np.unique(y[~known]).tolist()}"
        )
    return np.asarray(y == classes[1], np.uint8)
