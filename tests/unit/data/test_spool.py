"""The external shuffle: nothing lost, nothing depends on how the rows came in, all orders alike."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.rows import ClicksRows, R, RatingsRows, Rows
from mlless.data.spool import Spool, cut, even_sizes

Chunks = list[tuple[int, int]]


def ratings(start: int, stop: int) -> RatingsRows:
    numbers = np.arange(start, stop, dtype=np.int64)
    return RatingsRows(numbers, numbers * 2, (numbers / 2).astype(np.float32))


def clicks(start: int, stop: int) -> ClicksRows:
    """Row n has n % 4 features, all of them n."""
    numbers = np.arange(start, stop, dtype=np.int64)
    indices = np.repeat(numbers, numbers % 4)
    return ClicksRows(
        (numbers % 2).astype(np.uint8),
        numbers,
        np.append(0, np.cumsum(numbers % 4)),
        indices.astype(np.uint32),
        (indices / 2).astype(np.float32),
    )


def numbers_of(rows: Rows) -> list[int]:
    """Return the numbers that the rows were made from."""
    column = rows.numbers if isinstance(rows, ClicksRows) else rows.columns()[0]
    return list(column.tolist())


def check_shuffle(folder: Path, make: Callable[[int, int], R], buckets: int, chunks: Chunks) -> list[int]:
    """Shuffle the rows of ``chunks``, check that they are those made, and return their order."""
    rows = chunks[-1][1]
    spool = Spool(folder, type(make(0, 1)), buckets, seed=5)
    for start, stop in chunks:
        spool.add(make(start, stop))
    assert spool.rows == rows
    shuffled = spool.kind.join(list(spool.shuffled()))
    assert not list(folder.iterdir())
    order = np.array(numbers_of(shuffled), np.int64)
    for found, expected in zip(shuffled.columns(), make(0, rows).take(order).columns(), strict=True):
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()
    assert sorted(order.tolist()) == list(range(rows))
    return list(order.tolist())


@pytest.mark.parametrize("make", [ratings, clicks])
@given(rows=st.integers(1, 60), marks=st.sets(st.integers(0, 60)), buckets=st.integers(1, 7))
def test_the_shuffle_keeps_every_row_whatever_the_chunks(
    tmp_path_factory: pytest.TempPathFactory,
    make: Callable[[int, int], RatingsRows | ClicksRows],
    rows: int,
    marks: set[int],
    buckets: int,
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    bounds = [0, *sorted(mark for mark in marks if mark < rows), rows]
    at_once = check_shuffle(folder / "a", make, buckets, [(0, rows)])
    assert at_once == check_shuffle(folder / "b", make, buckets, list(itertools.pairwise(bounds)))


def test_all_orders_are_equally_likely(tmp_path: Path) -> None:
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(600):
        spool = Spool(tmp_path / str(seed), RatingsRows, 2, seed)
        spool.add(ratings(0, 3))
        counts[tuple(np.concatenate([rows.users for rows in spool.shuffled()]).tolist())] += 1
    # Chi-squared with 5 degrees of freedom: above 20.5 in one of a thousand sets of seeds.
    assert sum((counts[order] - 100) ** 2 / 100 for order in counts) < 20.5
    assert len(counts) == 6


@pytest.mark.parametrize("make", [ratings, clicks])
@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=8), data=st.data())
def test_cutting_moves_the_bounds_and_nothing_else(
    make: Callable[[int, int], RatingsRows | ClicksRows], lengths: list[int], data: st.DataObject
) -> None:
    bounds = np.append(0, np.cumsum(lengths)).tolist()
    sizes: list[int] = []
    while left := bounds[-1] - sum(sizes):
        sizes.append(data.draw(st.integers(1, left)))
    pieces = list(cut((make(a, b) for a, b in itertools.pairwise(bounds)), sizes))
    assert [len(piece) for piece in pieces] == sizes
    for piece, start in zip(pieces, np.append(0, np.cumsum(sizes)).tolist(), strict=False):
        expected = make(start, start + len(piece))
        for found, wanted in zip(piece.columns(), expected.columns(), strict=True):
            assert found.tolist() == wanted.tolist()


@given(st.integers(0, 10_000), st.integers(1, 3000))
def test_batches_are_few_and_even(rows: int, largest: int) -> None:
    sizes = even_sizes(rows, largest)
    assert sum(sizes) == rows
    assert len(sizes) == -(-rows // largest)
    assert not sizes or (max(sizes) <= largest and max(sizes) - min(sizes) <= 1)
