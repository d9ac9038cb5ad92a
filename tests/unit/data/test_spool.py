"""The external shuffle: nothing lost, nothing depends on how the rows came in, all orders alike."""

from __future__ import annotations

import itertools
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlless.data import spool as spool_module
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


class Watched(RatingsRows):
    """Ratings that keep in mind the most rows that were ever joined."""

    most = 0

    @classmethod
    def join(cls, pieces: Sequence[RatingsRows]) -> RatingsRows:
        cls.most = max(cls.most, sum(map(len, pieces)))
        return super().join(pieces)


def spool_of(folder: Path, chunks: Iterable[R], *, bound: int, seed: int = 5) -> Spool[R]:
    """Return a spool of the rows of ``chunks``."""
    first, *others = chunks
    spool = Spool(folder, type(first), seed, bound)
    for rows in (first, *others):
        spool.add(rows)
    return spool


def check_shuffle(
    folder: Path, make: Callable[[int, int], R], bound: int, chunks: Chunks, wanted: int
) -> list[int]:
    """Shuffle the rows of ``chunks``, check that they are those made, and return their order."""
    rows = chunks[-1][1]
    spool = spool_of(folder, (make(start, stop) for start, stop in chunks), bound=bound)
    assert spool.rows == rows
    assert spool.hold_out(wanted) == wanted
    kept = [numbers_of(some) for some in spool.shuffled(keep=True)]
    shuffled = spool.kind.join(list(spool.shuffled()))
    assert not list(folder.iterdir())
    order = np.array(numbers_of(shuffled), np.int64)
    assert list(itertools.chain(*kept)) == order.tolist()
    for found, expected in zip(shuffled.columns(), make(0, rows).take(order).columns(), strict=True):
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()
    assert sorted(order.tolist()) == list(range(rows))
    held_out = make(0, rows).take(order[:wanted]).hashes(spool.state).tolist()
    assert set(held_out) == set(sorted(make(0, rows).hashes(spool.state).tolist())[:wanted])
    assert (spool.largest_group, spool.repeats) == (1, 0)
    return list(order.tolist())


@pytest.mark.parametrize("make", [ratings, clicks])
@settings(max_examples=40)
@given(
    rows=st.integers(1, 60),
    marks=st.sets(st.integers(0, 60)),
    bound=st.integers(1, 3000),
    share=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_the_shuffle_keeps_every_row_whatever_the_chunks(
    tmp_path_factory: pytest.TempPathFactory,
    make: Callable[[int, int], RatingsRows | ClicksRows],
    rows: int,
    marks: set[int],
    bound: int,
    share: float,
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    bounds = [0, *sorted(mark for mark in marks if mark < rows), rows]
    wanted = round(rows * share)
    at_once = check_shuffle(folder / "a", make, bound, [(0, rows)], wanted)
    chunks = list(itertools.pairwise(bounds))
    assert at_once == check_shuffle(folder / "b", make, bound, chunks, wanted)


@pytest.mark.parametrize(("bound", "times"), [(10_000, 600), (15, 240)])
def test_all_orders_are_equally_likely(tmp_path: Path, bound: int, times: int) -> None:
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(times):
        spool = spool_of(tmp_path / str(seed), [ratings(0, 3)], bound=bound, seed=seed)
        spool.hold_out(1)
        counts[tuple(np.concatenate([rows.users for rows in spool.shuffled()]).tolist())] += 1
    # Chi-squared with 5 degrees of freedom: above 20.5 in one of a thousand sets of seeds.
    assert sum((counts[order] - times / 6) ** 2 / (times / 6) for order in counts) < 20.5
    assert len(counts) == 6


def test_every_row_comes_to_every_place_over_many_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "_DIGIT", 2)
    rows, places = 100, np.zeros((10, 10))
    for seed in range(40):
        spool = spool_of(tmp_path / str(seed), [ratings(0, rows)], bound=12 * 6, seed=seed)
        order = np.concatenate([some.users for some in spool.shuffled()])
        np.add.at(places, (order * 10 // rows, np.arange(rows) * 10 // rows), 1)
    # Chi-squared with 81 degrees of freedom: above 125.5 in one of a thousand sets of seeds.
    assert ((places - 40) ** 2 / 40).sum() < 125.5


def test_memory_and_open_files_are_bounded_whatever_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "_DIGIT", 2)
    rows, bound = 4_000, 12 * 60  # bytes: 60 rows
    chunks = (Watched(*ratings(at, at + 50).columns()) for at in range(0, rows, 50))
    before, *limits = len(os.listdir("/dev/fd")), *resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 10, limits[1]))
    try:
        spool = spool_of(tmp_path / "spool", chunks, bound=bound)
        assert spool.hold_out(400) == 400
        found, depth = [], set()
        for some in spool.shuffled():
            depth |= {path.name.count("-") for path in spool.folder.iterdir()}
            assert len(some) <= 60
            found.append(some.users)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0], limits[1]))
    assert Watched.most <= 60
    assert {1, 2, 3, 4} <= depth
    assert sorted(np.concatenate(found).tolist()) == list(range(rows))


@pytest.mark.parametrize("bound", [400, 100_000])
def test_rows_of_one_pair_stay_together_and_are_counted(tmp_path: Path, bound: int) -> None:
    random = np.random.default_rng(0)
    users, items = random.integers(0, 40, (2, 3000))
    made = RatingsRows(users, items, random.random(3000).astype(np.float32))
    spool = spool_of(tmp_path / "spool", [made], bound=bound)
    held_out = spool.hold_out(300)
    assert abs(held_out - 300) <= 4
    shuffled = RatingsRows.join(list(spool.shuffled()))
    pairs = list(zip(shuffled.users.tolist(), shuffled.items.tolist(), strict=True))
    assert not set(pairs[:held_out]) & set(pairs[held_out:])
    counts = Counter(zip(users.tolist(), items.tolist(), strict=True))
    assert spool.repeats == 3000 - len(counts)
    assert spool.largest_group == max(counts.values())


@pytest.mark.parametrize("others", [0, 500])
def test_one_pair_that_fills_many_buckets_is_not_split(tmp_path: Path, others: int) -> None:
    rows, bound = 5000, 1200
    numbers = np.concatenate([np.zeros(rows, np.int64), np.arange(1, others + 1)])
    made = RatingsRows(numbers, numbers, np.arange(len(numbers), dtype=np.float32))
    made = made.take(np.random.default_rng(1).permutation(len(numbers)))
    chunks = [made.part(at, min(at + 90, len(made))) for at in range(0, len(made), 90)]
    spool = spool_of(tmp_path / "spool", chunks, bound=bound)
    assert spool.hold_out(50) in ((0,) if not others else range(50, 53))
    pieces = list(spool.shuffled())
    assert max(map(len, pieces)) <= bound // 12
    assert sorted(RatingsRows.join(pieces).columns()[2].tolist()) == list(range(rows + others))
    assert (spool.repeats, spool.largest_group) == (rows - 1, rows)


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
