"""Statistics and ids that pass 1 collects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data import intake
from mlless.data.intake import DistinctIds, Moments

floats = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.lists(floats, min_size=1, max_size=20), min_size=1, max_size=6))
def test_moments_are_those_of_all_values(parts: list[list[float]]) -> None:
    moments = Moments()
    for part in parts:
        moments.add(np.array(part, np.float32))
    values = np.array([value for part in parts for value in part])
    assert moments.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
    assert moments.deviation == pytest.approx(values.std(), rel=1e-6, abs=1e-6)


def test_moments_survive_a_large_offset() -> None:
    moments = Moments()
    for _ in range(100):
        moments.add(np.array([2**24 - 1, 2**24 - 3], np.float32))
    assert (moments.mean, moments.deviation) == (2**24 - 2, 1.0)


def test_equal_values_have_a_deviation_of_exactly_zero() -> None:
    moments = Moments()
    for size in (3, 7, 1):
        moments.add(np.full(size, 3.3, np.float32))
    assert moments.deviation == 0.0


@given(st.lists(st.lists(st.integers(0, 2**63 - 1), max_size=50), max_size=8))
def test_distinct_ids_are_each_once_and_sorted(parts: list[list[int]]) -> None:
    ids = DistinctIds()
    for part in parts:
        ids.add(np.array(part, np.int64))
    assert ids.all().tolist() == sorted({number for part in parts for number in part})


def test_distinct_ids_merge_as_they_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MERGE", 10)
    ids = DistinctIds()
    for start in range(0, 1000, 5):
        ids.add(np.arange(start, start + 20, dtype=np.int64))
    assert ids.all().tolist() == list(range(1015))
