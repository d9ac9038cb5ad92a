"""Made-up data with a known model behind it, for demonstrations and tests. Call it generated, always.

Both writers stream, and say how well the model that made the data does on it: the best that any
training can hope for.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mlless.data.digits import lines, tenths, whole
from mlless.data.progress import ShowProgress
from mlless.data.staging import writing
from mlless.errors import UsageError

_BLOCK = 1 << 17  # rows (of ratings) or entries (of clicks) made at a time
_HIGHEST = 5.0
_ROUNDS = 20


def write_ratings(
    path: str | Path,
    *,
    users: int,
    items: int,
    rows: int,
    factors: int = 8,
    noise: float = 0.5,
    step: float = 0.5,
    seed: int = 0,
    progress: ShowProgress | None = None,
) -> float:
    """Write ratings in MovieLens' CSV form and return the RMSE of the model behind them.

    Users are log-normally active, items follow a Zipf law, and no user rates an item twice.
    A rating is mean + biases + a product of ``factors`` factors + normal ``noise``, in steps of
    ``step`` (a half or one) from there to 5. ``progress`` is called with the share that is written.
    """
    if min(users, items, rows, factors) < 1 or rows > users * items:
        raise UsageError(
            "no such table of ratings",
            expected="users, items, rows and factors of at least 1, and at most users x items rows",
            found=f"{users} users, {items} items, {rows} rows, {factors} factors",
        )
    random = np.random.default_rng(seed)
    activity = _activity(random, users, items, rows)
    popularity = _Zipf(random, items)
    user_bias, item_bias = random.normal(0.0, 0.4, users), random.normal(0.0, 0.5, items)
    spread = 0.8 / factors**0.25  # the product then has a standard deviation of 0.64 at any rank
    taste = random.normal(0.0, spread, (users, factors)).astype(np.float32)
    nature = random.normal(0.0, spread, (items, factors)).astype(np.float32)
    squares, written = 0.0, 0
    with text_file(Path(path)) as file:
        file.write(b"userId,movieId,rating\n")
        for start, stop in _runs(activity):
            user, item = _distinct_pairs(random, activity[start:stop], popularity)
            user += start
            product = np.einsum("nf,nf->n", taste[user], nature[item])
            planted = np.clip(3.5 + user_bias[user] + item_bias[item] + product, step, _HIGHEST)
            noisy = planted + random.normal(0.0, noise, len(planted))
            ratings = np.clip(np.round(noisy / step) * step, step, _HIGHEST)
            squares += float(((ratings - planted) ** 2).sum())
            file.write(lines([whole(user + 1), b",", whole(item + 1), b",", tenths(ratings), b"\n"]))
            written += len(user)
            if progress:
                progress(written / rows, "writing")
    return float(np.sqrt(squares / rows))


def write_clicks(path: str | Path, *, rows: int, features: int, per_row: int, seed: int = 0) -> float:
    """Write clicks as LIBSVM text (indices from 0, values 1) and return the log loss of the model behind.

    Features follow a Zipf law; a row has up to ``per_row`` distinct ones. The model is logistic,
    with one feature in five of a weight other than zero; about a quarter of the labels are 1.
    """
    if min(rows, features, per_row) < 1 or per_row > features:
        raise UsageError(
            "no such table of clicks",
            expected="at least 1 row, and from 1 feature a row to all of them",
            found=f"{rows} rows, {features} features, {per_row} per row",
        )
    random = np.random.default_rng(seed)
    popularity = _Zipf(random, features)
    active = random.random(features) < 0.2
    weights = np.where(active, random.normal(0.0, 1.5 / np.sqrt(0.2 * per_row), features), 0.0)
    block = max(_BLOCK // per_row, 1)
    loss = 0.0
    with text_file(Path(path)) as file:
        for start in range(0, rows, block):
            chosen = np.sort(popularity(random.random((min(block, rows - start), per_row))), axis=1)
            first = np.diff(chosen, axis=1, prepend=-1) > 0
            logits = np.where(first, weights[chosen], 0.0).sum(axis=1) - 1.2
            clicks = random.random(len(logits)) < 1.0 / (1.0 + np.exp(-logits))
            loss += float(np.logaddexp(0.0, np.where(clicks, -logits, logits)).sum())
            for click, row, new in zip(clicks.tolist(), chosen, first, strict=True):
                entries = map("{}:1".format, row[new].tolist())
                file.write(f"{'1' if click else '-1'} {' '.join(entries)}\n".encode())
    return loss / rows


class _Zipf:
    """Items with a Zipf law of popularity, in no order: ``zipf(uniform)`` draws from it."""

    def __init__(self, random: np.random.Generator, items: int) -> None:
        weights = 1.0 / (np.arange(items) + 10.0) ** 0.9
        self._bounds = np.cumsum(weights / weights.sum())
        self._items: NDArray[np.int64] = random.permutation(items)

    def __len__(self) -> int:
        return len(self._items)

    def __call__(self, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        places = np.searchsorted(self._bounds, uniform, side="right")
        drawn: NDArray[np.int64] = self._items[np.minimum(places, len(self) - 1)]
        return drawn


def _activity(random: np.random.Generator, users: int, items: int, rows: int) -> NDArray[np.int64]:
    """Return how many of ``rows`` ratings each user gives, at most ``items``."""
    share = random.lognormal(0.0, 1.0, users)
    counts: NDArray[np.int64] = np.minimum(share / share.sum() * rows, items).astype(np.int64)
    while missing := rows - int(counts.sum()):
        free = np.flatnonzero(counts < items)[:missing]
        counts[free] += np.minimum(items - counts[free], max(missing // len(free), 1))
    return counts


def _runs(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield runs of users with about `_BLOCK` ratings between them."""
    edges = np.flatnonzero(np.diff(np.cumsum(counts) // _BLOCK)) + 1
    bounds = [0, *edges.tolist(), len(counts)]
    yield from itertools.pairwise(bounds)


def _distinct_pairs(
    random: np.random.Generator, counts: NDArray[np.int64], popularity: _Zipf
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``counts[u]`` distinct items for each user u, as pairs in order."""
    items = len(popularity)
    pairs = np.zeros(0, np.int64)
    missing = counts
    for _ in range(_ROUNDS):
        drawn = np.repeat(np.arange(len(counts)), missing) * items + popularity(random.random(missing.sum()))
        pairs = np.union1d(pairs, drawn)
        missing = counts - np.bincount(pairs // items, minlength=len(counts))
        if not missing.any():
            break
    further = [pairs]
    for user in np.flatnonzero(missing):  # those who want nearly every item
        begin, end = np.searchsorted(pairs, (user * items, (user + 1) * items))
        others = np.setdiff1d(np.arange(items), pairs[begin:end] % items)
        further.append(user * items + random.choice(others, missing[user], replace=False))
    pairs = np.sort(np.concatenate(further))
    return pairs // items, pairs % items


@contextmanager
def text_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write text to; one named ``.gz`` is packed, with the same bytes every time."""
    with writing(path), path.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield raw
