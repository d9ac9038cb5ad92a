"""The merge kernel: compiled, twin and a plain loop give the same bits."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.kernels.conftest import Problems, clone, merge, packed

from mlless.job import MergeRule
from mlless.kernels import twin
from mlless.kernels.arrays import Floats, Rows, TableUpdate, Total
from mlless.replica import Replica, Summing, TableShape, coefficients

RULES = ("sum", "mean", "sqrt-members", "sqrt-publishers")


def oracle(table: Rows, columns: int, updates: list[TableUpdate], factors: Floats, by_count: bool) -> Floats:
    """Merge entry by entry in float32, as the design states it."""
    shared = table.data[:, :columns].copy()
    sums = np.zeros_like(shared)
    counts = np.zeros(shared.shape, int)
    for update in updates:
        marks = np.unpackbits(update.masks, axis=1, count=columns, bitorder="little").astype(bool)
        places = [
            (row, c) for row, mark in zip(update.rows, marks, strict=True) for c in np.flatnonzero(mark)
        ]
        for (row, c), value in zip(places, update.values, strict=True):
            sums[row, c] = np.float32(sums[row, c] + value)
            counts[row, c] += 1
    with np.errstate(over="ignore"):
        merged = shared + sums * (factors[counts] if by_count else factors[0])
    return np.where(counts > 0, merged, shared)


@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(1, 80),
    sizes=st.lists(st.integers(0, 12), max_size=9),
    density=st.sampled_from([0.05, 0.5, 1.0]),
    rule=st.sampled_from(RULES),
)
@example(seed=1, columns=256, sizes=[3, 0, 7], density=0.5, rule="sqrt-publishers")
@example(seed=1, columns=65, sizes=[0, 0], density=0.5, rule="sum")
@example(seed=1, columns=33, sizes=[], density=0.5, rule="mean")
@settings(max_examples=120)
def test_compiled_twin_and_oracle_agree_bit_by_bit(
    native: ModuleType, seed: int, columns: int, sizes: list[int], density: float, rule: str
) -> None:
    problems = Problems(seed)
    table = problems.table(13, columns)
    updates = [problems.update(13, columns, size, density) for size in sizes]
    factors, by_count = coefficients(rule, max(1, len(sizes)))  # type: ignore[arg-type]
    expected = oracle(table, columns, updates, factors, by_count)
    for kernels in (native, twin):
        merged = clone(table)
        merge(kernels, merged, columns, updates, factors, by_count)
        # An entry nobody published has zero added, which turns -0 into 0; as numbers they are equal.
        assert (merged.data[:, :columns] + 0.0).tobytes() == (expected + 0.0).tobytes()
        assert merged.data[:, columns:].tobytes() == table.data[:, columns:].tobytes()


@pytest.mark.parametrize("columns", [1, 2, 7, 11, 21, 33, 64, 65, 80, 256])
@pytest.mark.parametrize("rule", ["sum", "sqrt-publishers"])
def test_rows_across_block_borders_and_many_publishers(native: ModuleType, columns: int, rule: str) -> None:
    problems = Problems(columns)
    rows = 3 * (4096 // columns) + 5
    table = problems.table(rows, columns)
    sizes = [rows, 0, 1, rows // 3, *problems.random.integers(0, rows, 40).tolist()]
    updates = [problems.update(rows, columns, size, 0.3) for size in sizes]
    factors, by_count = coefficients(rule, len(sizes))  # type: ignore[arg-type]
    merged = clone(table), clone(table)
    merge(native, merged[0], columns, updates, factors, by_count)
    merge(twin, merged[1], columns, updates, factors, by_count)
    assert merged[0].data.tobytes() == merged[1].data.tobytes()


@pytest.mark.parametrize("rule", ["mean", "sqrt-members", "sqrt-publishers"])
def test_what_counts_whole_is_merged_as_it_is_whatever_the_rule(kernel: ModuleType, rule: str) -> None:
    problems = Problems(3)
    table = problems.table(50, 11)
    updates = [problems.update(50, 11, 20, 0.5) for _ in range(4)]
    factors, by_count = coefficients(rule, 4)  # type: ignore[arg-type]
    whole, summed = clone(table), clone(table)
    merge(kernel, whole, 11, updates, factors, by_count, whole=True)
    merge(kernel, summed, 11, updates, *coefficients("sum", 4))
    assert whole.data.tobytes() == summed.data.tobytes()


def test_blocks_start_anywhere(native: ModuleType) -> None:
    """Rows far apart, each side of a multiple of the block, the last one of the table."""
    problems = Problems(6)
    table = problems.table(100_000, 1)
    rows = np.array([0, 4094, 4095, 4096, 8190, 8191, 50_000, 54_095, 54_096, 99_999], np.uint32)
    updates = [
        TableUpdate(
            chosen,
            np.ones((len(chosen), 1), np.uint8),
            problems.random.normal(0, 1, len(chosen)).astype(np.float32),
        )
        for chosen in (rows, rows[::2].copy(), rows[1::3].copy())
    ]
    merged = clone(table), clone(table)
    for kernels, into in zip((native, twin), merged, strict=True):
        merge(kernels, into, 1, updates, np.ones(1, np.float32), by_count=False)
    assert merged[0].data.tobytes() == merged[1].data.tobytes()
    assert (merged[0].data[rows, 0] != table.data[rows, 0]).all()


def test_the_order_of_updates_counts(kernel: ModuleType) -> None:
    """Sums in float32 depend on their order: hence the order of worker ids."""
    rows, mask = np.zeros(1, np.uint32), np.ones((1, 1), np.uint8)
    parts = [TableUpdate(rows, mask, np.array([v], np.float32)) for v in (1e8, -1e8, 3.0)]
    results = []
    for order in (parts, parts[::-1]):
        table = Rows(np.zeros((1, 4), np.float32), 4)
        merge(kernel, table, 1, order, np.ones(1, np.float32), by_count=False)
        results.append(float(table.data[0, 0]))
    assert results == [3.0, 0.0]


@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(1, 80),
    sizes=st.lists(st.integers(0, 12), max_size=9),
    rule=st.sampled_from(RULES),
    half=st.booleans(),
    apart=st.booleans(),
)
@example(seed=1, columns=256, sizes=[3, 0, 7], rule="sqrt-publishers", half=False, apart=False)
@example(seed=1, columns=8, sizes=[13, 13], rule="mean", half=True, apart=False)
@settings(max_examples=120)
def test_one_after_the_other_gives_the_bits_of_all_at_once(
    native: ModuleType, seed: int, columns: int, sizes: list[int], rule: MergeRule, half: bool, apart: bool
) -> None:
    """Compiled and twin; where nothing was published -0 stays -0."""
    problems = Problems(seed)
    shapes = (TableShape("one", 13, columns, apart=apart), TableShape("other", 5, 1))
    parts = [
        [problems.update(13, columns, n, 0.5), problems.update(5, 1, int(problems.random.integers(6)), 0.5)]
        for n in sizes
    ]
    if half:
        parts = [[halved(part) for part in update] for update in parts]
    updates = [packed(update, half=int(half)) for update in parts]
    replicas = Replica(shapes), Replica(shapes), Replica(shapes)
    for replica in replicas:
        for table in replica.tables:
            table.rows.data[:] = Problems(seed).table(*table.shared.shape).data
            table.shared[::3] *= np.float32(-0.0)
    replicas[0].merge({str(n): update for n, update in enumerate(updates)}, rule, max(1, len(sizes)))
    for replica, kernels in zip(replicas[1:], (native, twin), strict=True):
        summing = Summing(replica, rule, max(1, len(sizes)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mlless.kernels.add_update", kernels.add_update)
            for n, update in enumerate(updates):
                summing.add(str(n), update)
        summing.merge()
        for one, other in zip(replica.tables, replicas[0].tables, strict=True):
            assert one.rows.data.tobytes() == other.rows.data.tobytes()


def halved(part: TableUpdate) -> TableUpdate:
    """Return an update in half precision."""
    halves = np.clip(part.values, -60000, 60000).astype(np.float16).view(np.uint16)
    return part._replace(values=halves, exponent=3)


def test_rows_that_mark_nothing_change_nothing(kernel: ModuleType) -> None:
    table = Rows(np.full((3, 4), -0.0, np.float32), 4)
    update = TableUpdate(np.arange(3, dtype=np.uint32), np.zeros((3, 1), np.uint8), np.zeros(0, np.float32))
    merge(kernel, table, 1, [update], np.ones(2, np.float32), by_count=True)
    assert np.signbit(table.data).all()


DAMAGES = (
    "row beyond the table",
    "mask beyond the columns",
    "value too many",
    "value too few",
    "mask too many",
    "mask too few",
    "mask without value",
    "coefficients too few",
)


@pytest.mark.parametrize(
    ("damage", "columns"),
    [
        (damage, n)
        for damage in DAMAGES
        for n in (1, 5, 11, 16)
        if n % 8 or damage != "mask beyond the columns"
    ],
)
def test_a_damaged_update_is_refused(kernel: ModuleType, damage: str, columns: int) -> None:
    problems = Problems(columns)
    table = problems.table(9, columns)
    before = table.data.tobytes()
    good, update = problems.update(9, columns, 4, 0.5), problems.update(9, columns, 4, 0.5)
    factors, by_count = coefficients("sqrt-publishers", 2)
    rows, masks, values = update.rows.copy(), update.masks.copy(), update.values.copy()
    if damage == "row beyond the table":
        rows[-1] = 9
    elif damage == "mask beyond the columns":
        masks[0] = 0
        masks[0, -1] = 0x80
        values = values[: int(np.bitwise_count(masks).sum())]
    elif damage == "value too many":
        values = np.append(values, np.ones(1, np.float32))
    elif damage == "value too few":
        values = values[:-1].copy()
    elif damage == "mask too many":
        masks = np.vstack([masks, np.zeros_like(masks[:1])])
    elif damage == "mask too few":
        masks = masks[:-1].copy()
    elif damage == "mask without value":
        masks[0] = 0
    else:
        factors = factors[:2].copy()
    both = [packed([good]), packed([TableUpdate(rows, masks, values)])]
    total = Total.zeros(9, columns, counted=True)
    kernel.add_update([total], both[0])
    sums = total.sums.tobytes(), total.counts.tobytes(), total.touched.tobytes()
    if damage != "coefficients too few":
        with pytest.raises(ValueError, match="not an update of these tables"):
            kernel.add_update([total], both[1])
    assert (total.sums.tobytes(), total.counts.tobytes(), total.touched.tobytes()) == sums
    with pytest.raises(ValueError) as caught:
        kernel.merge_updates([(table, columns, 0)], both, factors, int(by_count))
    assert damage == "coefficients too few" or caught.value.args[1] == 1, "it is the second that is damaged"
    assert table.data.tobytes() == before
