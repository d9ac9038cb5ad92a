"""Mini-batches from rows of many groups: what a mini-batch holds, how wide it is, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mlless.data import assembly
from mlless.data.assembly import assemble
from mlless.data.groups import ClicksGroup, RatingsGroup, joined
from mlless.data.manifest import Clicks, Ratings
from mlless.errors import DatasetError, UsageError
from mlless.kernels.arrays import ClicksArrays, RatingsArrays


def ratings(seed: int, count: int, shape: Ratings) -> RatingsGroup:
    random = np.random.default_rng(seed)
    return RatingsGroup(
        random.integers(0, shape.users, count).astype(np.uint32),
        random.integers(0, shape.items, count).astype(np.uint32),
        random.normal(0, 1, count).astype(np.float32),
    )


def clicks(
    seed: int, count: int, shape: Clicks, *, valued: bool = False, weighted: bool = False
) -> ClicksGroup:
    random = np.random.default_rng(seed)
    starts = np.append(0, np.cumsum(random.integers(0, 9, count))).astype(np.uint32)
    return ClicksGroup(
        random.integers(0, 2, count).astype(np.uint8),
        starts,
        random.integers(0, shape.table_rows, int(starts[-1])).astype(np.uint32),
        random.normal(0, 1, int(starts[-1])).astype(np.float32) if valued else None,
        np.arange(count, dtype=np.uint64),
        random.random(count).astype(np.float32) if weighted else None,
    )


def places(*edges: int) -> NDArray[np.int64]:
    return np.array(edges, np.int64)


RATINGS = Ratings(users=50, items=40, mean=0.0, deviation=1.0, low=-5.0, high=5.0)
CLICKS = Clicks(features=200, index_base=1, positives=0.5)


def test_a_mini_batch_of_ratings_holds_the_rows_asked_for() -> None:
    groups = [ratings(seed, 100, RATINGS) for seed in range(3)]
    begins, ends = places(10, 0, 99), places(40, 0, 100)
    batch = assemble(joined(groups), begins + 100 * places(0, 1, 2), ends + 100 * places(0, 1, 2), RATINGS)
    assert isinstance(batch, RatingsArrays)
    asked = [
        (int(g.users[n]), int(g.items[n]), float(g.ratings[n]))
        for g, begin, end in zip(groups, begins, ends, strict=True)
        for n in range(begin, end)
    ]
    users = np.repeat(batch.users, batch.starts[1:] - batch.starts[:-1])
    found = zip(users.tolist(), batch.items[batch.local].tolist(), batch.ratings.tolist(), strict=True)
    assert list(found) == sorted(
        asked, key=lambda row: row[0]
    )  # a stable sort: a user's rows keep their order
    assert batch.samples == 31
    assert batch.touched == (len({row[0] for row in asked}), len({row[1] for row in asked}))
    assert batch.nbytes == 4 * (2 * len(batch.users) + 1 + len(batch.items) + 31) + 2 * 31


def test_a_mini_batch_of_clicks_holds_the_rows_asked_for_in_their_order() -> None:
    groups = [clicks(0, 30, CLICKS), clicks(1, 30, CLICKS, valued=True), clicks(2, 30, CLICKS, weighted=True)]
    begins, ends = places(3, 5, 0), places(20, 30, 30)
    batch = assemble(joined(groups), begins + 30 * places(0, 1, 2), ends + 30 * places(0, 1, 2), CLICKS)
    assert isinstance(batch, ClicksArrays)
    assert batch.values is not None
    assert batch.weights is not None
    row = 0
    for group, begin, end in zip(groups, begins, ends, strict=True):
        for n in range(begin, end):
            ours, theirs = slice(*batch.starts[row : row + 2]), slice(*group.starts[n : n + 2])
            ones = np.ones(len(group.indices), np.float32)
            assert batch.labels[row] == group.labels[n]
            assert batch.weights[row] == (1 if group.weights is None else group.weights[n])
            assert batch.features[batch.local[ours]].tolist() == group.indices[theirs].tolist()
            values = ones if group.values is None else group.values
            assert batch.values[ours].tolist() == values[theirs].tolist()
            row += 1
    assert batch.samples == row == 72
    assert batch.touched == (len(np.unique(batch.features[batch.local])), 1)


def test_values_and_weights_that_no_group_has_are_left_out() -> None:
    batch = assemble(clicks(0, 30, CLICKS), places(0), places(30), CLICKS)
    assert isinstance(batch, ClicksArrays)
    assert batch.values is None
    assert batch.weights is None


@pytest.mark.parametrize(("items", "width"), [(65_536, 2), (65_537, 4)])
def test_local_ids_take_16_bits_where_that_is_surely_enough(items: int, width: int) -> None:
    shape = Ratings(users=50, items=items, mean=0.0, deviation=1.0, low=-5.0, high=5.0)
    batch = assemble(ratings(0, 70_000, shape), places(0), places(70_000), shape)
    assert (batch.width, batch.local.itemsize) == (width, width)


def test_an_array_keeps_no_memory_beyond_its_own() -> None:
    batch = assemble(ratings(0, 1000, RATINGS), places(0), places(1000), RATINGS)
    small = assemble(ratings(0, 1000, RATINGS), places(0), places(3), RATINGS)
    for array in (*batch, *small):
        assert not isinstance(array, np.ndarray) or array.base is None


def test_no_rows_are_a_mini_batch_of_nothing() -> None:
    batch = assemble(ratings(0, 10, RATINGS), places(4), places(4), RATINGS)
    assert (batch.samples, batch.touched) == (0, (0, 0))


@pytest.mark.parametrize(("begin", "end"), [(-1, 5), (90, 101), (50, 40)])
def test_rows_that_a_group_does_not_have_are_refused(begin: int, end: int) -> None:
    for group, shape in ((ratings(0, 100, RATINGS), RATINGS), (clicks(0, 100, CLICKS), CLICKS)):
        with pytest.raises(DatasetError, match="damaged"):
            assemble(group, places(begin), places(end), shape)


def test_ids_beyond_a_table_are_a_damaged_group() -> None:
    group = clicks(0, 100, CLICKS)
    group.indices[17] = CLICKS.table_rows
    with pytest.raises(DatasetError, match=r"beyond its table\. Partition the source again"):
        assemble(group, places(0), places(100), CLICKS)


def test_more_entries_than_can_be_counted_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "_MOST", 20)
    assemble(ratings(0, 30, RATINGS), places(0), places(20), RATINGS)
    with pytest.raises(UsageError, match=r"at most 20 entries, found 21\. Ask for a smaller mini-batch"):
        assemble(ratings(0, 30, RATINGS), places(0), places(21), RATINGS)
    with pytest.raises(UsageError, match="at most 20 entries"):
        assemble(clicks(0, 20, CLICKS), places(0), places(20), CLICKS)
