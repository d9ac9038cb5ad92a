"""Mini-batches and tables in the shapes of the published data sets, made up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlless.data.batches import ClicksBatch, RatingsBatch, group_ratings, local_ids
from mlless.job import Sync
from mlless.replica import Replica, TableShape

COLUMNS = 21  # 20 factors and the bias


class RatingsShape(NamedTuple):
    """A data set of ratings, and how many a mini-batch has."""

    name: str
    users: int
    items: int
    batch: int


ML_20M = RatingsShape("ML-20M", 138_493, 26_744, 12_000)
ML_1M = RatingsShape("ML-1M", 6_040, 3_706, 6_250)


class RatingsStream:
    """An endless stream of mini-batches: log-normally active users, Zipf-distributed items.

    Ratings are of standard scale: biases, a product of 8 factors, and noise of 0.7.
    """

    def __init__(self, shape: RatingsShape, seed: int = 0) -> None:
        self._size, self._random = shape.batch, np.random.default_rng(seed)
        random = self._random
        self._activity = np.cumsum(random.lognormal(0.0, 1.1, shape.users))
        self._popularity = np.cumsum(random.permutation(1.0 / (np.arange(shape.items) + 50.0) ** 1.1))
        self._biases = random.normal(0.0, 0.35, shape.users), random.normal(0.0, 0.35, shape.items)
        self._factors = random.normal(0.0, 0.4, (shape.users, 8)), random.normal(0.0, 0.4, (shape.items, 8))

    def next(self) -> RatingsBatch:
        """Return the next mini-batch."""
        users = np.searchsorted(self._activity, self._random.random(self._size) * self._activity[-1])
        items = np.searchsorted(self._popularity, self._random.random(self._size) * self._popularity[-1])
        ratings = self._biases[0][users] + self._biases[1][items] + self._random.normal(0.0, 0.7, self._size)
        ratings += np.einsum("nf,nf->n", self._factors[0][users], self._factors[1][items])
        return group_ratings(users, items, ratings.astype(np.float32))


def ratings_batches(shape: RatingsShape, count: int) -> list[RatingsBatch]:
    """Return the first mini-batches of a stream."""
    stream = RatingsStream(shape)
    return [stream.next() for _ in range(count)]


def clicks_batches(
    features: int, count: int, *, rows: int = 6_250, per_row: int = 39, seed: int = 0
) -> list[ClicksBatch]:
    """Return mini-batches in the shape of Criteo's: 39 features a row, of a Zipf law."""
    random = np.random.default_rng(seed)
    popularity = np.cumsum(1.0 / (np.arange(features) + 10.0) ** 1.05)
    place = random.permutation(features)
    batches = []
    for number in range(count):
        drawn = np.searchsorted(popularity, random.random((rows, per_row)) * popularity[-1])
        ids, index = local_ids(place[drawn].reshape(-1))
        batches.append(
            ClicksBatch(
                labels=(random.random(rows) < 0.25).astype(np.uint8),
                row_starts=(np.arange(rows + 1) * per_row).astype(np.uint32),
                features=ids,
                feature_index=index,
                values=None,
                rows=(np.arange(rows) + number * rows).astype(np.uint64),
            )
        )
    return batches


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
