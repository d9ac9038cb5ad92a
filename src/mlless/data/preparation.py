"""Prepares rows for a data set: one class for each kind of rows.

The first pass over a source collects ids, scales and shapes. The second one makes groups of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from mlless.data.dataset import Dataset
from mlless.data.dealing import Deal, RowDeal, UserDeal, cut_users, deal_users, groups_for
from mlless.data.features import ABSENT, FeatureMap, Scale, Scaling, unscaled
from mlless.data.findings import ColumnSurvey, RepeatSurvey
from mlless.data.groups import Group, RatingsGroup
from mlless.data.ids import NO_IDS, IdIndex, RatingIds, pack
from mlless.data.manifest import Clicks, Finding, Ratings
from mlless.data.readers import Reading, Source, read_clicks, read_columns, read_ratings
from mlless.data.readers.plan import perhaps_not_ratings
from mlless.data.rows import MOST, Chunk, ClicksRows, ColumnRows, R, RatingsRows, clicks_group
from mlless.errors import InputError

MOST_UNTOLD = 1 << 27  # features of LIBSVM: a worker needs some 2 GB for them


class Preparation(Protocol[R]):
    """Pass 1: ``chunks``, each followed by ``note``. Then ``settle`` and ``deal``. Pass 2: ``group``."""

    rows: type[R]

    def chunks(self) -> Iterator[Chunk[R]]:
        """Yield the rows of the source."""
        ...

    def note(self, chunk: Chunk[R]) -> R:
        """Take in what must be known of all rows before the first group; return the rows to keep."""
        ...

    def settle(self, training: Iterator[R]) -> None:
        """Fix the shape of the tables; read the rows to train on once more if need be."""
        ...

    def deal(self, rows: int, size: int, seed: int) -> Deal[R]:
        """Deal all ``rows``, of so many bytes, to groups; fix the ids."""
        ...

    def group(self, rows: R, training: bool) -> Group:
        """Return rows of one group as its file holds them."""
        ...

    def shape(self) -> Ratings | Clicks:
        """Return the shape of the data set."""
        ...

    def ids(self) -> bytes | None:
        """Return the file of original ids, if there is one."""
        ...

    def findings(self) -> Iterator[Finding]:
        """Yield what to doubt in the source that groups do not show."""
        ...


class Moments:
    """Mean and population standard deviation, updated in parts (Chan, Golub and LeVeque, 1979)."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._pivot: float | None = None

    def add(self, values: NDArray[np.floating]) -> None:
        """Take in ``values``, at least one."""
        if self._pivot is None:
            self._pivot = float(values[0])  # equal values then have a deviation of exactly zero
        shifted = values.astype(np.float64) - self._pivot
        mean, count = float(shifted.mean()), len(shifted)
        total = self._count + count
        step = mean - self._mean
        self._squares += float(((shifted - mean) ** 2).sum()) + step * step * self._count * count / total
        self._mean += step * count / total
        self._count = total

    @property
    def mean(self) -> float:
        """The mean so far."""
        return (self._pivot or 0.0) + self._mean

    @property
    def deviation(self) -> float:
        """The standard deviation so far."""
        return float(np.sqrt(self._squares / max(self._count, 1)))


class RatingsPreparation:
    """Ratings: numbers the ids as they come, and once all are known by their order; collects the scale."""

    rows = RatingsRows

    def __init__(self, source: Source, like: Dataset | None, reading: Reading, sure: bool) -> None:
        """Take a source that may be something else than ratings unless it is ``sure``."""
        self.source, self.like, self.reading = source, like, reading
        self._perhaps_clicks = not sure
        known = like.ids() if like else RatingIds(NO_IDS, NO_IDS)
        self._users, self._items = IdIndex(known.users), IdIndex(known.items)
        self._before = len(known.users), len(known.items)  # ids of the data set ``like``
        self._counts = np.zeros(len(known.users), np.int64)  # ratings of each user
        self._low, self._high = np.inf, -np.inf
        self._moments = Moments()

    def chunks(self) -> Iterator[Chunk[RatingsRows]]:
        """Yield the rows of the source."""
        return read_ratings(self.source, self.reading)

    def note(self, chunk: Chunk[RatingsRows]) -> RatingsRows:
        """Collect ids and scale; return the rows with codes for ids."""
        ratings = _rated(chunk.rows.ratings)
        if len(ratings):
            self._low = min(self._low, float(ratings.min()))
            self._high = max(self._high, float(ratings.max()))
            if self._perhaps_clicks:
                self._perhaps_clicks = bool(np.isin(ratings, (self._low, self._high, 0.0, 1.0)).all())
        users = self._users.add(chunk.rows.users)
        more = len(self._users) - len(self._counts)
        if more > 0:
            self._counts = np.pad(self._counts, (0, max(more, len(self._counts))))
        np.add.at(self._counts, users, 1)
        return RatingsRows(users, self._items.add(chunk.rows.items), ratings)

    def settle(self, training: Iterator[RatingsRows]) -> None:
        """Check that these are ratings, and not of too many users or items."""
        if self._perhaps_clicks and (self._low, self._high) in ((0.0, 1.0), (-1.0, 1.0)):
            found = f"{self._low:g} and {self._high:g}"
            raise perhaps_not_ratings(self.source.name, "the ratings are two numbers, as clicks are", found)
        for index, what in ((self._users, "users"), (self._items, "items")):
            if len(index) > MOST:
                raise InputError(f"too many {what}", expected=f"at most {MOST}", found=str(len(index)))

    def deal(self, rows: int, size: int, seed: int) -> Deal[RatingsRows]:
        """Deal the users to groups, and give every id its row.

        Rows of users are ordered by group, and within a group by id. With ``like`` the known ids keep their
        rows, and the others follow in order of their ids. A group then has consecutive rows.
        """
        users = self._users.order(self._before[0])
        counts = self._counts[users]
        groups = groups_for(rows, size, int(np.count_nonzero(counts)))
        if self.like:
            dealt = cut_users(counts, groups)
        else:
            dealt = deal_users(counts, groups)
            by_group = np.argsort(dealt, kind="stable")
            users, dealt = users[by_group], dealt[by_group]
        self._rows = self._users.renumber(users), self._items.sort(self._before[1])
        return UserDeal(dealt[self._rows[0]], int(dealt.max()) + 1)

    def group(self, rows: RatingsRows, training: bool) -> Group:
        """Return rows of one group as its file holds them."""
        ratings = _rated(rows.ratings)
        if training:
            self._moments.add(ratings)
        users, items = self._rows
        return RatingsGroup(users[rows.users].astype(np.uint32), items[rows.items].astype(np.uint32), ratings)

    def shape(self) -> Ratings:
        """Return the shape of the data set."""
        users, items = len(self._users), len(self._items)
        if self.like and isinstance(self.like.manifest.shape, Ratings):
            of = self.like.manifest.shape
            return Ratings(users, items, of.mean, of.deviation, of.low, of.high)
        deviation = self._moments.deviation or 1.0
        return Ratings(users, items, self._moments.mean, deviation, self._low, self._high)

    def ids(self) -> bytes:
        """Return the file of original ids."""
        return safetensors.numpy.save(pack("users", self._users.ids) | pack("items", self._items.ids))

    def findings(self) -> Iterator[Finding]:
        """Yield nothing: groups show all there is."""
        return iter(())


def _rated(ratings: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert ratings is not None, "a source without ratings is read only where they are optional"
    return ratings


class ClicksPreparation:
    """Clicks: finds out the number of features and whether they are counted from 0 or 1."""

    rows = ClicksRows

    def __init__(self, source: Source, features: int | None, like: Clicks | None, reading: Reading) -> None:
        self.source, self.like, self.reading = source, like, reading
        self.features, self.index_base = features, 0
        if like:
            self.features, self.index_base = like.features, like.index_base
        self._biggest = -1
        self._first_with_zero: str | None = None
        self._first_with_last: str | None = None
        self._share = _Positives()

    def chunks(self) -> Iterator[Chunk[ClicksRows]]:
        """Yield the rows of the source."""
        highest = self.like.table_rows - 1 if self.like else self.features
        return read_clicks(self.source, self.reading, lowest=self.index_base, highest=highest)

    def note(self, chunk: Chunk[ClicksRows]) -> ClicksRows:
        """Take in which indices occur."""
        if not len(chunk.rows.indices):
            return chunk.rows
        self._biggest = max(self._biggest, int(chunk.rows.indices.max()))
        if self.features is None or self.like:
            return chunk.rows
        self._first_with_zero = self._first_with_zero or _first_place(chunk, 0)
        self._first_with_last = self._first_with_last or _first_place(chunk, self.features)
        if self._first_with_zero and self._first_with_last:
            raise InputError(
                f"features 0 and {self.features} both occur",
                where=self._first_with_last,
                expected=f"indices from 0 to {self.features - 1}, or from 1 to {self.features}",
                found=f"index 0 in {self._first_with_zero}",
                cure=f"give --features {self.features + 1} or more, or leave it out",
            )
        return chunk.rows

    def settle(self, training: Iterator[ClicksRows]) -> None:
        """Fix the number of features."""
        if self.features is None:
            self.features = self._biggest + 1
            if not self.features:
                raise InputError("no row has a feature", where=self.source.name)
            if self.features > MOST_UNTOLD:
                raise InputError(
                    f"features are numbered up to {self._biggest:,}, and a model has a row for each number",
                    where=self.source.name,
                    expected=f"up to {MOST_UNTOLD:,}",
                    cure="number those that occur from 1, or hash them into fewer; if so many are meant, "
                    f"give --features {self.features}",
                )
        elif self._first_with_last:
            self.index_base = 1

    def deal(self, rows: int, size: int, seed: int) -> Deal[ClicksRows]:
        """Deal rows at random."""
        return RowDeal(groups_for(rows, size, rows), seed)

    def group(self, rows: ClicksRows, training: bool) -> Group:
        """Return rows of one group as its file holds them."""
        if training:
            self._share.add(rows.labels)
        return clicks_group(rows)

    def shape(self) -> Clicks:
        """Return the shape of the data set."""
        return Clicks(self.features or 0, self.index_base, self._share.value)

    def ids(self) -> None:
        """Clicks are stored under the indices of their source."""

    def findings(self) -> Iterator[Finding]:
        """Yield nothing: groups show all there is."""
        return iter(())


class _Positives:
    """The share of label 1."""

    def __init__(self) -> None:
        self._positives = self._rows = 0

    def add(self, labels: NDArray[np.uint8]) -> None:
        """Count the labels of some rows."""
        self._rows += len(labels)
        self._positives += int(labels.sum(dtype=np.int64))

    @property
    def value(self) -> float:
        """Return the share of label 1 so far."""
        return self._positives / max(self._rows, 1)


class ColumnsPreparation:
    """Clicks in columns: learns the scales from the training part, unless they are given."""

    rows = ColumnRows

    def __init__(self, source: Source, features: FeatureMap, reading: Reading) -> None:
        """Take ``features`` as it is if it has scales, else find them out."""
        self.source, self.features, self.reading = source, features, reading
        self._share = _Positives()
        self._numeric = ColumnSurvey(features.layout.numeric)
        self._categorical = ColumnSurvey(features.layout.categorical)
        self._repeats = RepeatSurvey(features.layout.categorical, features.hashed)

    def chunks(self) -> Iterator[Chunk[ColumnRows]]:
        """Yield the rows of the source."""
        return read_columns(self.source, self.features, self.reading)

    def note(self, chunk: Chunk[ColumnRows]) -> ColumnRows:
        """Look for columns that say nothing."""
        self._numeric.add(chunk.rows.numeric)
        self._categorical.add(chunk.rows.categories)
        self._repeats.add(chunk.rows.categories)
        return chunk.rows

    def settle(self, training: Iterator[ColumnRows]) -> None:
        """Find out the scales."""
        self.features = with_scales(self.features, training)

    def deal(self, rows: int, size: int, seed: int) -> Deal[ColumnRows]:
        """Deal rows at random."""
        return RowDeal(groups_for(rows, size, rows), seed)

    def group(self, rows: ColumnRows, training: bool) -> Group:
        """Return rows of one group as its file holds them."""
        if training:
            self._share.add(rows.labels)
        return clicks_group(self.features.encode(rows))

    def shape(self) -> Clicks:
        """Return the shape of the data set."""
        return Clicks(self.features.features, 0, self._share.value, self.features)

    def ids(self) -> None:
        """Features have no names to go back to."""

    def findings(self) -> Iterator[Finding]:
        """Yield the columns that say nothing."""
        yield from self._numeric.findings(np.nan)
        yield from self._categorical.findings(ABSENT)
        yield from self._repeats.findings()


def with_scales(features: FeatureMap, training: Iterable[ColumnRows]) -> FeatureMap:
    """Return the map with the scales of the rows to train on, unless it has its scales."""
    columns = len(features.layout.numeric)
    if len(features.scales) == columns:
        return features
    scales = [_LearnedScale(features.scaling) for _ in range(columns)]
    for rows in training:
        for place, scale in enumerate(scales):
            scale.add(rows.numeric[:, place])
    return msgspec.structs.replace(features, scales=tuple(scale.value for scale in scales))


class _LearnedScale:
    """The scale of one numeric column, from the numbers that are there."""

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling
        self._moments = Moments()
        self._low, self._high = np.inf, -np.inf

    def add(self, raw: NDArray[np.float32]) -> None:
        """Take in raw numbers; NaN stands for a missing one."""
        numbers = unscaled(raw[~np.isnan(raw)], self._scaling)
        if len(numbers):
            self._moments.add(numbers)
            self._low = min(self._low, float(numbers.min()))
            self._high = max(self._high, float(numbers.max()))

    @property
    def value(self) -> Scale:
        """Return the scale that all numbers so far come to."""
        if self._low > self._high:
            return Scale()
        if self._scaling == "minmax":
            return Scale(self._low, (self._high - self._low) or 1.0)
        return Scale(self._moments.mean, self._moments.deviation or 1.0)


def _first_place(chunk: Chunk[ClicksRows], index: int) -> str | None:
    """Return where the first row with feature ``index`` is, None if there is none."""
    places = np.flatnonzero(chunk.rows.indices == index)
    if not len(places):
        return None
    line = chunk.lines[np.searchsorted(chunk.rows.starts, places[0], side="right") - 1]
    return f"{chunk.part}, line {line}"
