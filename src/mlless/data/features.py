"""PURE: how a row of raw columns becomes features; what a data set and a model keep of it.

The features of a row, with M numeric columns and N features for categories:

    0 .. M-1        the numeric columns, scaled; a missing value has no entry here but
    M .. 2M-1       an entry of 1 in the indicator of its column
    2M .. 2M+N-1    categories: feature 2M + hash(column, value) mod N with value 1; two that fall on
                    one feature add up, a missing one has none

The hash is that of ``mlless.data.hashing``, from the state that the column's name and the seed give.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlless.data.hashing import hash_name
from mlless.data.rows import ClicksRows, ColumnRows, starts_of
from mlless.errors import UsageError

Scaling = Literal["standard", "minmax"]
SCALINGS: tuple[Scaling, ...] = ("standard", "minmax")
HASHED: Final = 1 << 18
MOST_HASHED: Final = 1 << 31
ABSENT: Final = 2**32 - 1  # stands for a category that is missing; no hash is as big
MISSING: Final = ("", "NA", "N/A", "nan", "NaN", "null", "None", "\\N")  # the texts that say so


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which columns of a table of clicks are what.

    Attributes
    ----------
    label : str
        The column of the label.
    numeric, categorical : tuple of str
        The columns of numbers, and those of categories. Other columns are not used.
    separator : str
        What separates the columns of text. Parquet has none.
    names : tuple of str, or None
        The names of all columns in order, for text without a header. None takes the names from the header.
    labels : tuple of two str
        The label of no click, and that of a click. By default 0 and 1, -1 and 1, or false and true.
    missing : tuple of str
        The texts that stand for a missing value. By default the empty text and usual ones, such as ``NA``.
    """

    label: str
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    separator: str = ","
    names: tuple[str, ...] | None = None
    # Unset ones are left out of manifests, so that older ones keep their fingerprints.
    labels: tuple[str, str] | msgspec.UnsetType = msgspec.UNSET
    missing: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET

    def check(self, where: str) -> None:
        """Raise UsageError unless each column is named once and the separator is one character."""
        used = (self.label, *self.numeric, *self.categorical)
        if len(used) == 1:
            raise UsageError("no columns to learn from", where=where, expected="numeric or categorical ones")
        for names in (used, self.names or ()):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise UsageError("a column named twice", where=where, found=", ".join(twice))
        if self.names is not None and set(used) - set(self.names):
            missing = ", ".join(sorted(set(used) - set(self.names)))
            raise UsageError("columns not among the names", where=where, found=missing)
        if self.labels and self.labels[0] == self.labels[1]:
            raise UsageError("labels that do not differ", where=where, found=self.labels[0])
        if len(self.separator.encode()) != 1 or self.separator in '"\r\n':
            raise UsageError("no such separator", where=where, expected="one character", found=self.separator)


class RatingsLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which columns of a table of ratings are what.

    ``user``, ``item`` and ``rating`` are names of columns, or numbers from 1. ``separator`` and ``names`` are
    as in `Layout`.
    """

    user: str | int
    item: str | int
    rating: str | int | None = None
    separator: str | None = None
    names: tuple[str, ...] | None = None


_NUMERIC = tuple(f"I{n}" for n in range(1, 14))
_CATEGORICAL = tuple(f"C{n}" for n in range(1, 27))
CRITEO: Final = Layout("label", _NUMERIC, _CATEGORICAL, "\t", ("label", *_NUMERIC, *_CATEGORICAL))


class Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A numeric column becomes (x - ``shift``) / ``spread``."""

    shift: float = 0.0
    spread: float = 1.0


class FeatureMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the rows of a table become features: see this module's docstring.

    ``version`` is that of hash and places. ``scaling`` ``standard``: x is sign(raw) * log(1 + abs(raw)),
    shift and spread are mean and standard deviation over the training part. ``minmax``, as
    published: x is raw, shift its least value there, spread the greatest less the least.
    """

    version: Literal[1]
    layout: Layout
    hashed: int
    seed: int
    scaling: Scaling
    scales: tuple[Scale, ...]

    def __post_init__(self) -> None:
        """Raise ValueError, which a decoder turns into its own error, where parts do not go together."""
        if not (1 <= self.hashed <= MOST_HASHED and 0 <= self.seed < 1 << 63):
            raise ValueError("number of hashed features or seed out of range")
        if self.scales and len(self.scales) != len(self.layout.numeric):
            raise ValueError("as many scales as numeric columns are needed")
        if not all(math.isfinite(scale.shift) and 0 < scale.spread < math.inf for scale in self.scales):
            raise ValueError("a scale that scales nothing")

    def check_learned(self, features: int) -> None:
        """Raise ValueError unless all scales are known and there are so many ``features``."""
        if len(self.scales) != len(self.layout.numeric) or self.features != features:
            raise ValueError("the columns do not make these features")

    @property
    def format(self) -> Literal["criteo", "columns"]:
        """The format of the sources it reads."""
        return "criteo" if self.layout == CRITEO else "columns"

    @property
    def features(self) -> int:
        """The number of features."""
        return 2 * len(self.layout.numeric) + self.hashed

    def states(self) -> NDArray[np.uint64]:
        """Return the state from which each categorical column is hashed."""
        return np.array([hash_name(name, self.seed) for name in self.layout.categorical], np.uint64)

    def encode(self, rows: ColumnRows) -> ClicksRows:
        """Return the rows with their features."""
        shift = np.array([scale.shift for scale in self.scales], np.float64)
        spread = np.array([scale.spread for scale in self.scales], np.float64)
        scaled = (unscaled(rows.numeric, self.scaling) - shift) / spread
        missing = np.isnan(rows.numeric)
        places = np.arange(len(self.scales), dtype=np.uint32)
        numeric = np.where(missing, places + np.uint32(len(self.scales)), places)
        values = np.where(missing, 1.0, scaled).astype(np.float32)
        categories, counts, lengths = _added_up(rows.categories)
        categories += np.uint32(2 * len(self.scales))
        starts = starts_of(lengths + len(self.scales))
        of_categories = np.ones(int(starts[-1]), np.bool_)
        of_categories[(starts[:-1, None] + places).ravel()] = False
        all_indices = np.empty(len(of_categories), np.uint32)
        all_values = np.empty(len(of_categories), np.float32)
        all_indices[of_categories], all_values[of_categories] = categories, counts
        all_indices[~of_categories], all_values[~of_categories] = numeric.ravel(), values.ravel()
        return ClicksRows(rows.labels, rows.numbers, starts, all_indices, all_values)


def unscaled(raw: NDArray[np.float32], scaling: Scaling) -> NDArray[np.float64]:
    """Return what is shifted and spread: the logarithm of the raw numbers, or these themselves."""
    wide = raw.astype(np.float64)
    return np.copysign(np.log1p(np.abs(wide)), wide) if scaling == "standard" else wide


def _added_up(
    categories: NDArray[np.uint32],
) -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.int64]]:
    """Return the features of all rows in turn, how often each is in its row, and how many a row has."""
    rows, columns = categories.shape
    if not columns or not rows:
        return np.zeros(0, np.uint32), np.zeros(0, np.float32), np.zeros(rows, np.int64)
    ordered = np.sort(categories, axis=1)
    first = np.ones(ordered.shape, np.bool_)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=first[:, 1:])
    runs = np.flatnonzero(first.ravel())
    counts = np.diff(runs, append=ordered.size)
    present = ordered != ABSENT
    kept = present.ravel()[runs]
    return (
        ordered.ravel()[runs[kept]],
        counts[kept].astype(np.float32),
        (first & present).sum(axis=1, dtype=np.int64),
    )
