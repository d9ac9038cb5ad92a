"""Which items are best for whom, against a sort by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless import ranking
from mlless.ranking import Seen, top_items


def by_hand(p, q, user, n, seen):
    scores = p[user, :-1] @ q[:, :-1].T + q[:, -1] + p[user, -1]
    order = [item for item in np.argsort(-scores, kind="stable") if item not in seen][:n]
    return order, scores[order]


@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), items=st.integers(1, 9), block=st.integers(1, 40))
def test_the_best_come_first_and_the_seen_not_at_all(seed, n, items, block):
    random = np.random.default_rng(seed)
    p, q = (random.normal(size=(rows, 4)).astype(np.float32) for rows in (6, items))
    pairs = random.integers(0, 6, 15), random.integers(0, items, 15)
    seen = Seen.of(*pairs)
    rows = random.integers(0, 6, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK", block)
        best, scores = top_items(p, q, rows=rows, n=n, seen=seen)
    for place, user in enumerate(rows):
        order, expected = by_hand(p, q, user, n, set(pairs[1][pairs[0] == user].tolist()))
        assert best[place, : len(order)].tolist() == order
        np.testing.assert_allclose(scores[place, : len(order)], expected, rtol=1e-4, atol=1e-5)
        assert (best[place, len(order) :] == -1).all()
        assert np.isnan(scores[place, len(order) :]).all()


def test_of_equals_the_lower_row_comes_first():
    best, _ = top_items(
        np.zeros((1, 3), np.float32), np.zeros((8, 3), np.float32), rows=np.zeros(1, int), n=8, seen=None
    )
    assert best[0].tolist() == list(range(8))


def test_a_user_who_joined_later_has_seen_nothing():
    seen = Seen.of(np.array([0, 0]), np.array([2, 2]))
    assert [part.tolist() for part in seen.pairs()] == [[0], [2]]
    places, items = seen.within(np.array([-1, 3, 0]))
    assert (places.tolist(), items.tolist()) == ([2], [2])
