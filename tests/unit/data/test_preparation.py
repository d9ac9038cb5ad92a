"""Statistics and ids that pass 1 collects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.preparation import Moments

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
