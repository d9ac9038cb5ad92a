"""What kernels are given."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlless.kernels.arrays import distinct_ids


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=9), max_size=4))
def test_each_id_is_there_once_and_in_order(ids: list[list[int]]) -> None:
    found = distinct_ids([np.array(some, np.uint32) for some in ids])
    assert found.dtype == np.uint32
    assert found.tolist() == sorted({one for some in ids for one in some})
