"""Mini-batches and tables in the shapes of the published data sets, made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mlless
from mlless.data.assembly import assemble
from mlless.data.groups import ClicksGroup, Group, RatingsGroup
from mlless.data.manifest import Clicks, Ratings
from mlless.data.synthetic import write_ratings
from mlless.job import Sync
from mlless.kernels.arrays import ClicksArrays, RatingsArrays
from mlless.replica import Replica, TableShape

COLUMNS = 21  # 20 factors and the bias


class RatingsShape(NamedTuple):
    """A data set of ratings, and how many a mini-batch has."""

    name: str
    users: int
    items: int
    batch: int

    @property
    def tables(self) -> Ratings:
        """The shape as a data set's manifest has it."""
        return Ratings(self.users, self.items, mean=0.0, deviation=1.0, low=-10.0, high=10.0)


ML_20M = RatingsShape("ML-20M", 138_493, 26_744, 12_000)
ML_1M = RatingsShape("ML-1M", 6_040, 3_706, 6_250)


def partitioned(shape: RatingsShape, rows: int, folder: Path) -> Path:
    """Make up so many ratings of a shape, partition them, and return where the data set is."""
    write_ratings(folder / "ratings.csv", users=shape.users, items=shape.items, rows=rows)
    mlless.partition(folder / "ratings.csv", folder / "data")
    return folder / "data"


class RatingsStream:
    """An endless stream of mini-batches: log-normally active users, Zipf-distributed items.

    Ratings are of standard scale: biases, a product of 8 factors, and noise of 0.7.
    """

    def __init__(self, shape: RatingsShape, seed: int = 0) -> None:
        self._shape, self._random = shape, np.random.default_rng(seed)
        random = self._random
        self._activity = np.cumsum(random.lognormal(0.0, 1.1, shape.users))
        self._popularity = np.cumsum(random.permutation(1.0 / (np.arange(shape.items) + 50.0) ** 1.1))
        self._biases = random.normal(0.0, 0.35, shape.users), random.normal(0.0, 0.35, shape.items)
        self._factors = random.normal(0.0, 0.4, (shape.users, 8)), random.normal(0.0, 0.4, (shape.items, 8))

    def rows(self, count: int) -> RatingsGroup:
        """Return the next ratings, in the order in which they come."""
        users = np.searchsorted(self._activity, self._random.random(count) * self._activity[-1])
        items = np.searchsorted(self._popularity, self._random.random(count) * self._popularity[-1])
        ratings = self._biases[0][users] + self._biases[1][items] + self._random.normal(0.0, 0.7, count)
        ratings += np.einsum("nf,nf->n", self._factors[0][users], self._factors[1][items])
        return RatingsGroup(users.astype(np.uint32), items.astype(np.uint32), ratings.astype(np.float32))

    def next(self) -> RatingsArrays:
        """Return the next mini-batch."""
        return one_batch(self.rows(self._shape.batch), self._shape.tables)


def ratings_batches(shape: RatingsShape, count: int) -> list[RatingsArrays]:
    """Return the first mini-batches of a stream."""
    stream = RatingsStream(shape)
    return [stream.next() for _ in range(count)]


def clicks_batches(
    features: int, count: int, *, rows: int = 6_250, per_row: int = 39, seed: int = 0
) -> list[ClicksArrays]:
    """Return mini-batches in the shape of Criteo's: 39 features a row, of a Zipf law."""
    group = clicks_rows(features, count * rows, per_row=per_row, seed=seed)
    shape = Clicks(features, index_base=0, positives=0.25)
    return [one_batch(group.part(n * rows, (n + 1) * rows), shape) for n in range(count)]


def clicks_rows(features: int, rows: int, *, per_row: int = 39, seed: int = 0) -> ClicksGroup:
    """Return labelled rows of so many features each."""
    random = np.random.default_rng(seed)
    popularity = np.cumsum(1.0 / (np.arange(features) + 10.0) ** 1.05)
    place = random.permutation(features).astype(np.uint32)
    drawn = np.searchsorted(popularity, random.random(rows * per_row) * popularity[-1])
    return ClicksGroup(
        labels=(random.random(rows) < 0.25).astype(np.uint8),
        starts=(np.arange(rows + 1) * per_row).astype(np.uint32),
        indices=place[drawn],
        values=None,
        numbers=np.arange(rows, dtype=np.uint64),
    )


def one_batch(group: Group, shape: Ratings | Clicks) -> Any:
    """Return all rows of a group as one mini-batch, of the group's kind."""
    return assemble(group, np.array([0]), np.array([len(group)]), shape)


def ratings_replica(shape: RatingsShape) -> Replica:
    """Return tables from N(0, 0.1), with Adagrad's accumulators as after some hundred steps."""
    replica = Replica([TableShape("users", shape.users, COLUMNS), TableShape("items", shape.items, COLUMNS)])
    random = np.random.default_rng(1)
    for table in replica.tables:
        table.shared[:] = random.normal(0.0, 0.1, table.shared.shape)
        table.state[:] = 3000.0
    return replica


def clicks_replica(features: int) -> Replica:
    """Return tables of zeros."""
    return Replica([TableShape("features", features, 1), TableShape("intercept", 1, 1)])


BSP = Sync(significance=0.0, half=False, merge="sum")
ISP = Sync(significance=0.7, half=True, merge="sum")
