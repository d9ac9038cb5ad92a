"""Rows on their way to groups: nothing lost, nothing depends on how they came in or where they lay."""

from __future__ import annotations

import itertools
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlless.data import spool as spool_module
from mlless.data.dealing import RowDeal, UserDeal
from mlless.data.rows import ClicksRows, ColumnRows, R, RatingsRows, Rows
from mlless.data.spool import Spool


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


def columns(start: int, stop: int) -> ColumnRows:
    """Row n has three numbers and two categories, all of them n."""
    numbers = np.arange(start, stop, dtype=np.int64)
    numeric = np.repeat(numbers, 3).reshape(-1, 3).astype(np.float32)
    categories = np.repeat(numbers, 2).reshape(-1, 2).astype(np.uint32)
    return ColumnRows((numbers % 2).astype(np.uint8), numbers, numeric, categories)


def numbers_of(rows: Rows) -> list[int]:
    """Return the numbers that the rows were made from."""
    column = rows.columns()[0] if isinstance(rows, RatingsRows) else rows.numbers
    return list(column.tolist())


def spool_of(folder: Path, chunks: Iterable[R], *, bound: int, seed: int = 5) -> Spool[R]:
    """Return a spool of the rows of ``chunks``."""
    first, *others = chunks
    spool = Spool(folder, type(first), seed, bound)
    for rows in (first, *others):
        spool.add(rows)
    return spool


def check_groups(
    folder: Path, make: Callable[[int, int], R], bound: int, bounds: list[int], wanted: int, groups: int
) -> list[tuple[list[int], list[int]]]:
    """Deal the rows between ``bounds``; check that they are those made, and return their order by group."""
    rows = bounds[-1]
    spool = spool_of(folder, (make(*part) for part in itertools.pairwise(bounds)), bound=bound)
    assert spool.rows == rows
    assert spool.hold_out(wanted) == wanted
    training = [numbers_of(piece) for piece in spool.training()]
    assert all(len(piece) == 7 for piece in training[:-1])
    deal = RowDeal(groups, 1)
    found = list(spool.dealt(deal))
    assert not (folder / "rows").exists()
    assert len(found) == groups
    whole = [part for parts in found for part in parts if len(part)]
    dealt = [(numbers_of(trained), numbers_of(held_out)) for trained, held_out in found]
    order = np.array(list(itertools.chain(*(part for parts in dealt for part in parts))))
    assert sorted(order.tolist()) == list(range(rows))
    for column, expected in zip(
        spool.kind.join(whole).columns(), make(0, rows).take(order).columns(), strict=True
    ):
        assert column.dtype == expected.dtype
        assert column.tolist() == expected.tolist()
    of = deal.of(make(0, rows), 0)
    for group, (trained, held) in enumerate(dealt):
        assert sorted(trained + held) == np.flatnonzero(of == group).tolist()
    assert list(itertools.chain(*training)) == sorted(itertools.chain(*(trained for trained, _ in dealt)))
    assert sum(len(held) for _, held in dealt) == wanted
    assert (spool.largest_group, spool.repeats) == (1, 0)
    return dealt


@pytest.mark.parametrize("make", [ratings, clicks, columns])
@settings(max_examples=40)
@given(
    rows=st.integers(1, 60),
    marks=st.sets(st.integers(1, 59)),
    bound=st.integers(1, 3000),
    share=st.sampled_from([0.0, 0.1, 0.5]),
    groups=st.integers(1, 9),
)
def test_every_row_is_in_its_group_whatever_the_chunks_and_the_bound(
    tmp_path_factory: pytest.TempPathFactory,
    make: Callable[[int, int], RatingsRows | ClicksRows | ColumnRows],
    rows: int,
    marks: set[int],
    bound: int,
    share: float,
    groups: int,
) -> None:
    folder, groups, wanted = tmp_path_factory.mktemp("spool"), min(groups, rows), round(rows * share)
    bounds = [0, *sorted(mark for mark in marks if mark < rows), rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "_PIECE", 7)
        in_memory = check_groups(folder / "a", make, 10**6, [0, rows], wanted, groups)
        assert in_memory == check_groups(folder / "b", make, bound, bounds, wanted, groups)


def test_memory_and_open_files_are_bounded_whatever_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, bound = 4_000, 12 * 60  # bytes: 60 rows
    most = 0
    plain = RatingsRows.of

    def watched(columns: list[np.ndarray]) -> RatingsRows:
        nonlocal most
        most = max(most, len(columns[0]))
        return plain(columns)

    monkeypatch.setattr(RatingsRows, "of", watched)
    before, *limits = len(os.listdir("/dev/fd")), *resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 10, limits[1]))
    try:
        spool = spool_of(tmp_path / "spool", (ratings(at, at + 50) for at in range(0, rows, 50)), bound=bound)
        assert spool.hold_out(400) == 400
        found = [numbers_of(part) for parts in spool.dealt(RowDeal(200, 0)) for part in parts]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0], limits[1]))
    assert 0 < most <= 60
    assert sorted(itertools.chain(*found)) == list(range(rows))


def test_a_group_of_more_than_fits_is_read_whole(tmp_path: Path) -> None:
    spool = spool_of(tmp_path / "spool", (ratings(at, at + 50) for at in range(0, 500, 50)), bound=12 * 60)
    group_of = np.repeat([0, 1, 2], [20, 400, 80])
    found = [numbers_of(trained) for trained, _ in spool.dealt(UserDeal(group_of, 3))]
    assert [len(part) for part in found] == [20, 400, 80]
    assert sorted(found[1]) == list(range(20, 420))


@pytest.mark.parametrize("bound", [400, 100_000])
def test_rows_of_one_pair_are_on_one_side_and_counted(tmp_path: Path, bound: int) -> None:
    random = np.random.default_rng(0)
    users, items = random.integers(0, 40, (2, 3000))
    made = RatingsRows(users, items, random.random(3000).astype(np.float32))
    chunks = [made.part(at, at + 30) for at in range(0, 3000, 30)]
    spool = spool_of(tmp_path / "spool", chunks, bound=bound)
    held_out = spool.hold_out(300)
    assert abs(held_out - 300) <= 4
    sides: list[list[tuple[int, int]]] = [[], []]
    for parts in spool.dealt(UserDeal(np.arange(40) // 3, 14)):
        for side, rows in zip(sides, parts, strict=True):
            side += zip(rows.users.tolist(), rows.items.tolist(), strict=True)
    assert not set(sides[0]) & set(sides[1])
    assert len(sides[1]) == held_out
    counts = Counter(zip(users.tolist(), items.tolist(), strict=True))
    assert Counter(sides[0] + sides[1]) == counts
    assert (spool.repeats, spool.largest_group) == (3000 - len(counts), max(counts.values()))


@pytest.mark.parametrize("exact", [10_000, 500])
@pytest.mark.parametrize(("others", "near"), [(0, 0), (20_000, 2500)])
def test_one_pair_of_many_ratings_is_not_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: int, others: int, near: int
) -> None:
    monkeypatch.setattr(spool_module, "_EXACT", exact)
    numbers = np.concatenate([np.zeros(5000, np.int64), np.arange(1, others + 1)])
    made = RatingsRows(numbers, numbers, np.arange(len(numbers), dtype=np.float32))
    made = made.take(np.random.default_rng(1).permutation(len(numbers)))
    spool = spool_of(tmp_path / "spool", [made], bound=10**6)
    held_out = spool.hold_out(2500 if others else 50)
    assert abs(held_out - near) <= (3 if others else 0)
    ((trained, held),) = spool.dealt(UserDeal(np.zeros(others + 1, np.int64), 1))
    assert len(held) == held_out
    assert len(set(held.users.tolist()) & set(trained.users.tolist())) == 0
    assert (spool.repeats, spool.largest_group) == (4999, 5000)


@pytest.mark.parametrize("wanted", [0, 1, 9_000, 90_000])
def test_of_many_rows_nearly_as_many_as_wanted_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int
) -> None:
    monkeypatch.setattr(spool_module, "_EXACT", 5000)
    spool = spool_of(
        tmp_path / "spool", (ratings(at, at + 3000) for at in range(0, 90_000, 3000)), bound=10**7
    )
    held_out = spool.hold_out(wanted)
    assert abs(held_out - wanted) <= 4  # 90,000 rows fall into 65,536 parts
    dealt = sum(len(held) for _, held in spool.dealt(RowDeal(10, 0)))
    assert dealt == held_out
