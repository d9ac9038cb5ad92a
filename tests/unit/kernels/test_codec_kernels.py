"""Updates as bytes: compiled kernels and twin write and read the same."""

from __future__ import annotations

import struct
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.kernels.conftest import Problems, clone, packed

from mlless.kernels import twin
from mlless.kernels.arrays import Bytes, Rows, TableUpdate

HEAD, PART = struct.Struct("<2sBBBI"), struct.Struct("<IIIb")
HALF, PLANES = 1, 2

ids = st.one_of(
    st.lists(st.integers(0, 300), unique=True, max_size=50),
    st.lists(st.integers(0, 2**32 - 1), unique=True, max_size=50),
    st.lists(
        st.sampled_from([127, 128, 129, 2**14, 2**14 + 1, 2**21, 2**28 - 1, 2**28, 2**32 - 1]), unique=True
    ),
)


def column_of(rows: list[int], values: list[float] | None = None) -> TableUpdate:
    """Return an update of a table of one column."""
    ascending = np.array(sorted(rows), np.uint32)
    marks = np.ones((len(rows), 1), np.uint8)
    return TableUpdate(ascending, marks, np.array(values or [1.0] * len(rows), np.float32))


def by_hand(flags: int, part: tuple[int, int, int, int], body: bytes) -> Bytes:
    """Return the bytes of an update of one table, whatever they say."""
    return np.frombuffer(HEAD.pack(b"MU", 1, flags, 1, 0) + PART.pack(*part) + body, np.uint8)


def halves_of(update: TableUpdate, exponent: int) -> TableUpdate:
    scaled = update.values.view(np.float32) * np.float32(2.0**exponent)
    halves = np.clip(scaled, -65504, 65504).astype(np.float16)
    return update._replace(values=halves.view(np.uint16), exponent=exponent)


def merged(kernel: ModuleType, tables: list[tuple[Rows, int]], updates: list[Bytes]) -> list[bytes] | None:
    """Return what the tables hold after a merge, or None if it is refused, which must leave them alone."""
    copies = [(clone(table), columns) for table, columns in tables]
    try:
        kernel.merge_updates(
            [(*copy, 0) for copy in copies], updates, np.ones(len(updates) + 1, np.float32), 1
        )
    except ValueError:
        for (table, _), (copy, _) in zip(tables, copies, strict=True):
            assert copy.data.tobytes() == table.data.tobytes(), "written before all was known to be sound"
        return None
    return [table.data.tobytes() for table, _ in copies]


@given(rows=ids)
@example(rows=[])
@example(rows=[2**32 - 1])
@example(rows=[0, 128, 128 + 2**14, 2**21 + 2**15, 2**28 + 2**22])
@settings(max_examples=300)
def test_rows_pack_to_the_same_bytes_and_back(native: ModuleType, rows: list[int]) -> None:
    update = column_of(rows)
    data = packed([update], pack=native)
    assert data.tobytes() == packed([update]).tobytes()
    (back,) = twin.unpack_update(data, [(2**32, 1)])
    np.testing.assert_array_equal(back.rows, update.rows)
    if rows:
        with pytest.raises(ValueError):
            twin.unpack_update(data, [(max(rows), 1)])


@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.lists(st.integers(1, 40), max_size=3),
    half=st.booleans(),
    planes=st.booleans(),
)
@settings(max_examples=200)
def test_updates_pack_and_merge_alike(
    native: ModuleType, seed: int, columns: list[int], half: bool, planes: bool
) -> None:
    problems = Problems(seed)
    updates = []
    for _ in range(3):
        parts = [problems.update(12, width, int(problems.random.integers(0, 8)), 0.4) for width in columns]
        if half:
            parts = [halves_of(part, int(problems.random.integers(-20, 12))) for part in parts]
        updates.append(packed(parts, half, planes, native))
        assert updates[-1].tobytes() == packed(parts, half, planes).tobytes()
    tables = [(problems.table(12, width), width) for width in columns]
    result = merged(native, tables, updates)
    assert result is not None
    assert result == merged(twin, tables, updates)


def test_an_update_may_begin_at_any_address(native: ModuleType) -> None:
    problems = Problems(1)
    for half in (0, 1):
        part = problems.update(40, 11, 30, 0.5)
        data = packed([halves_of(part, 3) if half else part], half)
        tables = [(problems.table(40, 11), 11)]
        for start in range(1, 8):
            moved = np.concatenate([np.zeros(start, np.uint8), data])[start:]
            assert merged(native, tables, [moved]) == merged(twin, tables, [data])


@given(data=st.binary(max_size=40), rows=st.integers(0, 12), limit=st.integers(1, 400))
@settings(max_examples=1000)
def test_any_bytes_are_the_same_rows_or_none(native: ModuleType, data: bytes, rows: int, limit: int) -> None:
    update = by_hand(0, (rows, rows, len(data), 0), data + b"\x01" * rows + struct.pack("<f", 1.0) * rows)
    tables = [(Problems(1).table(limit, 1), 1)]
    assert merged(native, tables, [update]) == merged(twin, tables, [update])


@pytest.mark.parametrize(("half", "planes"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_mutants_merge_alike_or_not_at_all(native: ModuleType, half: int, planes: int) -> None:
    """2,000 cases each: bits flipped, bytes changed, taken away and put in, and sometimes two at once."""
    problems = Problems(9)
    random = problems.random
    parts = [problems.update(20, 5, 9, 0.4), problems.update(40, 11, 15, 0.3)]
    good = packed([halves_of(part, 2) for part in parts] if half else parts, half, planes)
    tables = [(problems.table(20, 5), 5), (problems.table(40, 11), 11)]
    passed = 0
    for _ in range(2000):
        changed = bytearray(good.tobytes())
        for _ in range(random.integers(1, 3)):
            kind, at = random.integers(0, 4), random.integers(0, len(changed))
            if kind == 0:
                changed[at] ^= 1 << random.integers(0, 8)
            elif kind == 1:
                changed[at] = random.choice([0, 1, 127, 128, 255])
            elif kind == 2:
                del changed[at : at + random.integers(1, 5)]
            else:
                changed[at:at] = bytes(random.integers(0, 256, random.integers(1, 5)).astype(np.uint8))
        mutant = np.frombuffer(bytes(changed), np.uint8)
        result = merged(native, tables, [good, mutant])
        assert result == merged(twin, tables, [good, mutant])
        passed += result is not None
    assert 0 < passed < 2000


@pytest.mark.parametrize(
    "gap",
    [
        b"\x80\x80\x80\x80\x80\x00",  # of six bytes
        b"\xff\xff\xff\xff\x7f",  # of 2^35 - 1
        b"\x80\x80\x80\x80\x10",  # of 2^32
        b"\x80",  # that does not end
    ],
)
def test_gaps_beyond_any_row_are_refused(kernel: ModuleType, gap: bytes) -> None:
    tables = [(Problems(1).table(5, 1), 1)]
    body = gap + b"\x01" + struct.pack("<f", 1.0)
    assert merged(kernel, tables, [by_hand(0, (1, 1, len(gap), 0), body)]) is None


@pytest.mark.parametrize("exponent", [-100, -7, 0, 10, 100])
def test_every_finite_half_merges_exactly(kernel: ModuleType, exponent: int) -> None:
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    halves = every[(every & 0x7C00) != 0x7C00]
    rows = np.arange(len(halves), dtype=np.uint32)
    update = TableUpdate(rows, np.ones((len(halves), 1), np.uint8), halves, exponent)
    table = Rows(np.zeros((len(halves), 4), np.float32), 4)
    kernel.merge_updates([(table, 1, 0)], [packed([update], half=1)], np.ones(1, np.float32), 0)
    expected = np.ldexp(halves.view(np.float16).astype(np.float64), -exponent)
    np.testing.assert_array_equal(table.data[:, 0].astype(np.float64), expected)


def test_values_that_are_not_finite_are_refused(kernel: ModuleType) -> None:
    tables = [(Problems(1).table(5, 1), 1)]
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    for special in every[(every & 0x7C00) == 0x7C00][::37]:
        halves = np.array([0, special, 0x3C00], np.uint16)
        update = column_of([0, 1, 2])._replace(values=halves)
        assert merged(kernel, tables, [packed([update], half=1)]) is None
    for wide in (np.inf, -np.inf, np.nan):
        assert merged(kernel, tables, [packed([column_of([0, 1, 2], [0.0, wide, 1.0])])]) is None


@pytest.mark.parametrize("exponent", [-128, -101, 101, 127])
def test_exponents_beyond_100_are_refused(kernel: ModuleType, exponent: int) -> None:
    tables = [(Problems(1).table(5, 1), 1)]
    update = column_of([0])._replace(values=np.ones(1, np.uint16), exponent=exponent)
    with pytest.raises(ValueError):
        packed([update], half=1, pack=kernel)
    assert merged(kernel, tables, [by_hand(HALF, (1, 1, 1, exponent), b"\0\x01\0\x3c")]) is None


@pytest.mark.parametrize("rows", [[1, 1], [2, 1], [0, 5, 5]])
def test_rows_that_do_not_ascend_are_refused(kernel: ModuleType, rows: list[int]) -> None:
    update = column_of(rows)._replace(rows=np.array(rows, np.uint32))
    with pytest.raises(ValueError):
        kernel.pack_update([update], 0, 0, np.empty(100, np.uint8))


def test_packing_needs_five_bytes_a_row(kernel: ModuleType) -> None:
    update = column_of([0, 1, 2])
    for room in (0, 8, 9, 21, 22 + 15 + 3 + 12 - 1):
        with pytest.raises(ValueError):
            kernel.pack_update([update], 0, 0, np.empty(room, np.uint8))
    kernel.pack_update([update], 0, 0, np.empty(22 + 15 + 3 + 12, np.uint8))


def test_planes_hold_all_first_bytes_then_all_second_ones(kernel: ModuleType) -> None:
    update = column_of([0, 1, 2], [1.0, -2.0, 3.5])
    values = packed([update], planes=1, pack=kernel)[-12:]
    assert values.tobytes() == update.values.view(np.uint8).reshape(3, 4).T.tobytes()
