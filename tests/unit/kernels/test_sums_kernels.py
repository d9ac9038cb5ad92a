"""What whoever merges for all computes: sums that are kept and sent, and updates cut into shards."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kernels.conftest import Problems, contents, merge, outbox, packed

from mlless.kernels import twin
from mlless.kernels.arrays import Rows, TableUpdate
from mlless.kernels.twin import FLOATS, HALVES, MERGED
from mlless.replica import coefficients

RULES = ("sum", "mean", "sqrt-members", "sqrt-publishers")


@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(1, 80),
    sizes=st.lists(st.integers(0, 12), max_size=9),
    density=st.sampled_from([0.05, 0.5, 1.0]),
    rule=st.sampled_from(RULES),
    whole=st.booleans(),
    large=st.booleans(),
)
@settings(max_examples=120)
def test_sums_are_what_a_merge_adds_and_their_rows_are_named(
    native: ModuleType,
    seed: int,
    columns: int,
    sizes: list[int],
    density: float,
    rule: str,
    whole: bool,
    large: bool,
) -> None:
    """Added to what was kept, bit for bit; what is no finite number any more is the largest one."""
    problems = Problems(seed)
    updates = [problems.update(200, columns, size, density) for size in sizes]
    before = problems.random.uniform(-1, 1, size=(200, columns)).astype(np.float32) * (3e38 if large else 1)
    before = np.clip(before, -3.4e38, 3.4e38)
    factors, by_count = coefficients(rule, max(1, len(sizes)))  # type: ignore[arg-type]
    if whole:
        factors, by_count = np.ones(1, np.float32), False
    table = np.zeros((200, 3 * columns + 1), np.float32)
    table[:, :columns] = before
    merge(twin, Rows(table, 3 * columns + 1), columns, updates, factors, by_count)
    most = np.finfo(np.float32).max
    expected = np.nan_to_num(table[:, :columns], nan=most, posinf=most, neginf=-most)
    named = np.unique(
        np.concatenate([one.rows for one in updates if len(one.values)] or [np.empty(0, np.uint32)])
    )
    for kernels in (native, twin):
        kept, rows = before.copy(), np.full(200, 7, np.uint32)
        [(count, largest)] = kernels.sum_updates(
            [((kept, columns), columns, int(whole))],
            [packed([one]) for one in updates],
            factors,
            int(by_count),
            [rows],
        )
        assert kept.tobytes() == expected.tobytes()
        assert np.array_equal(rows[:count], named)
        assert largest == np.abs(kept[named]).max(initial=0)


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 30),
    columns=st.integers(1, 80),
    mode=st.sampled_from([FLOATS, HALVES]),
    threshold=st.sampled_from([0.0, 0.3, 1.0]),
    exponent=st.integers(-5, 15),
)
@settings(max_examples=120)
def test_kept_sums_pass_the_filter_of_a_step(
    native: ModuleType, seed: int, rows: int, columns: int, mode: int, threshold: float, exponent: int
) -> None:
    """Compiled and twin agree bit by bit; the table itself, and other rows, stay as they are."""
    problems = Problems(seed)
    table = problems.table(rows, columns)
    before = problems.random.normal(0, 0.1, (rows, columns)).astype(np.float32)
    ids = np.flatnonzero(problems.random.random(rows) < 0.7).astype(np.uint32)
    left = []
    for kernels in (native, twin):
        kept, data = before.copy(), table.data.tobytes()
        box = outbox(len(ids), columns)._replace(exponent=exponent)
        sent = kernels.publish_sums(table, kept, columns, ids, threshold, mode, box)
        assert table.data.tobytes() == data
        others = np.setdiff1d(np.arange(rows), ids)
        assert np.array_equal(kept[others], before[others])
        left.append((kept.tobytes(), tuple(sent), contents(box, sent, int(mode == HALVES))))
    assert left[0] == left[1]


@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(1, 40),
    size=st.integers(0, 60),
    half=st.booleans(),
    shards=st.integers(1, 9),
    block=st.sampled_from([1, 3, 64]),
)
@settings(max_examples=120)
def test_an_update_is_cut_alike(
    native: ModuleType, seed: int, columns: int, size: int, half: bool, shards: int, block: int
) -> None:
    part = Problems(seed).update(300, columns, size, 0.5)
    if half:
        with np.errstate(over="ignore"):  # infinities are cut like all others
            part = part._replace(values=part.values.astype(np.float16).view(np.uint16))
    cuts = []
    for kernels in (native, twin):
        out = TableUpdate(np.empty_like(part.rows), np.empty_like(part.masks), np.empty_like(part.values))
        sizes = kernels.cut_update(part, int(half), shards, block, out)
        assert np.sum(sizes, axis=0, dtype=int).tolist() == [len(part.rows), len(part.values)]
        cuts.append((list(map(tuple, sizes)), out.rows.tobytes(), out.masks.tobytes(), out.values.tobytes()))
    assert cuts[0] == cuts[1]


def test_what_does_not_fit_is_refused(kernel: ModuleType) -> None:
    problems = Problems(1)
    table, kept, update = problems.table(9, 11), np.zeros((9, 11), np.float32), problems.update(9, 11, 5, 0.5)
    ids, one = np.array([1, 4], np.uint32), np.ones(1, np.float32)
    with pytest.raises(ValueError, match="room for the rows"):
        kernel.sum_updates([((kept, 11), 11, 0)], [packed([update])], one, 0, [np.empty(8, np.uint32)])
    with pytest.raises(ValueError, match="room for the rows"):
        kernel.sum_updates([((kept, 11), 11, 0)], [packed([update])], one, 0, [])
    with pytest.raises(ValueError, match="not an update"):
        kernel.sum_updates([((kept, 11), 11, 0)], [b"no update"], one, 0, [np.empty(9, np.uint32)])
    assert not kept.any()
    with pytest.raises(ValueError, match="rows must ascend"):
        kernel.publish_sums(table, kept, 11, ids[::-1].copy(), 0.0, FLOATS, outbox(2, 11))
    with pytest.raises(ValueError, match="too small"):
        kernel.publish_sums(table, kept, 11, ids, 0.0, MERGED, outbox(2, 11))
    short = update._replace(values=update.values[:-1].copy())
    with pytest.raises(ValueError, match="not an update"):
        kernel.cut_update(short, 0, 3, 64, short._replace(values=short.values.copy()))


def test_memory_that_is_too_small_is_refused(native: ModuleType) -> None:
    problems = Problems(1)
    table, kept, update = problems.table(9, 11), np.zeros((9, 11), np.float32), problems.update(9, 11, 5, 0.5)
    ids = np.array([1, 4], np.uint32)
    with pytest.raises(ValueError, match="this shape"):
        native.publish_sums(table, kept[:8].copy(), 11, ids, 0.0, FLOATS, outbox(2, 11))
    with pytest.raises(ValueError, match="too small"):
        native.publish_sums(table, kept, 11, ids, 0.0, FLOATS, outbox(1, 11))
    with pytest.raises(ValueError, match="not an update"):
        native.cut_update(update, 0, 3, 64, update._replace(rows=update.rows[:-1].copy()))
