"""Dealing: how many groups, and who is in which."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.dealing import BOUND, GROUPS, RowDeal, cut_users, deal_users, groups_for, spread
from mlless.data.rows import ClicksRows
from mlless.membership import deal


@pytest.mark.parametrize(
    ("rows", "size", "most", "groups"),
    [
        (1, 12, 1, 1),
        (24, 300, 24, 1),
        (1000, 12_000, 40, 40),
        (1000, 12_000, 7, 7),
        (10**6, 12 * 10**6, 6040, GROUPS),
        (10**9, 700 * BOUND + 1, 10**6, 701),
        (10**9, 700 * BOUND, 1, 1),  # one user has all
    ],
)
def test_groups_are_many_enough_to_balance_and_to_fit_into_memory(
    rows: int, size: int, most: int, groups: int
) -> None:
    assert groups_for(rows, size, most) == groups


def heavy_tailed(users: int = 20_000) -> np.ndarray:
    """Return how many ratings each user gave: half of them come from a twentieth of the users."""
    return np.ceil(20 / (1 - np.random.default_rng(3).random(users)) ** 0.9).astype(np.int64)


@pytest.mark.parametrize(("workers", "most"), [(7, 1.01), (23, 1.05), (24, 1.01), (64, 1.07)])
def test_workers_have_about_as_many_ratings(workers: int, most: float) -> None:
    counts = np.minimum(heavy_tailed(), 3000)
    sizes = np.bincount(deal_users(counts, GROUPS), counts).astype(int)
    owners = np.frombuffer(deal(sizes.tolist(), range(workers)), "<u2")
    loads = np.bincount(owners, sizes)
    assert len(loads) == workers
    assert loads.max() / loads.mean() < most


def test_a_user_of_more_than_a_group_has_one_alone() -> None:
    counts = np.array([3, 1000, 3, 3, 3])
    dealt = deal_users(counts, 3)
    assert sorted(np.bincount(dealt, counts).tolist()) == [6, 6, 1000]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60).filter(any), st.integers(1, 20))
def test_users_cut_in_their_order_are_in_groups_of_consecutive_ones(counts: list[int], groups: int) -> None:
    cut = cut_users(np.array(counts), groups)
    assert (np.diff(cut) >= 0).all()
    sizes = np.bincount(cut, counts)
    assert len(sizes) <= groups
    assert sizes.all()
    # A group has at most a share, and half a user on either side.
    assert sizes.max() <= sum(counts) / groups + max(counts)


def clicks(count: int) -> ClicksRows:
    rows = np.zeros(count, np.int64)
    return ClicksRows(
        rows.astype(np.uint8), rows, np.zeros(count + 1, np.int64), rows[:0].astype(np.uint32), np.zeros(0)
    )


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**40), st.data())
def test_rows_are_dealt_evenly_however_they_come(
    count: int, groups: int, seed: int, data: st.DataObject
) -> None:
    dealt = RowDeal(groups, seed)
    at_once = dealt.of(clicks(count), 0)
    sizes = np.bincount(at_once, minlength=groups)
    assert sizes.max() - sizes.min() <= 1
    middle = data.draw(st.integers(0, count))
    parts = dealt.of(clicks(middle), 0), dealt.of(clicks(count - middle), middle)
    assert np.concatenate(parts).tolist() == at_once.tolist()


def test_every_row_goes_to_every_group() -> None:
    times = np.zeros((5, 5))
    for seed in range(400):
        np.add.at(times, (np.arange(5), RowDeal(5, seed).of(clicks(5), 0)), 1)
    # Chi-squared with 16 degrees of freedom: above 39.3 in one of a thousand sets of seeds.
    assert ((times - 80) ** 2 / 80).sum() < 39.3


def test_all_orders_within_a_group_are_equally_likely() -> None:
    group_of = np.array([1, 0, 1, 0, 1])
    held_out = np.zeros(5, bool)
    orders: dict[tuple[int, ...], int] = {}
    for seed in range(600):
        (_, none), (places, _) = spread(group_of, held_out, range(2), seed)
        assert not len(none)
        order = tuple(places.tolist())
        orders[order] = orders.get(order, 0) + 1
    assert set(map(frozenset, orders)) == {frozenset({0, 2, 4})}
    # Chi-squared with 5 degrees of freedom: above 20.5 in one of a thousand sets of seeds.
    assert len(orders) == 6
    assert sum((times - 100) ** 2 / 100 for times in orders.values()) < 20.5
