"""Rows as gaps, halves to floats, byte planes."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlless.kernels import twin

ids = st.one_of(
    st.lists(st.integers(0, 300), unique=True, max_size=50),
    st.lists(st.integers(0, 2**32 - 1), unique=True, max_size=50),
    st.lists(
        st.sampled_from([127, 128, 129, 2**14, 2**14 + 1, 2**21, 2**28 - 1, 2**28, 2**32 - 1]), unique=True
    ),
)


@given(rows=ids)
@example(rows=[])
@example(rows=[2**32 - 1])
@example(rows=[0, 128, 128 + 2**14, 2**21 + 2**15, 2**28 + 2**22])
@settings(max_examples=300)
def test_rows_pack_to_the_same_bytes_and_back(native: ModuleType, rows: list[int]) -> None:
    array = np.array(sorted(rows), np.uint32)
    packed = [np.full(5 * len(array) + 3, 0xEE, np.uint8) for _ in range(2)]
    sizes = [k.pack_rows(array, out) for k, out in zip((native, twin), packed, strict=True)]
    assert packed[0].tobytes() == packed[1].tobytes()
    assert sizes[0] == sizes[1]
    assert (packed[0][sizes[0] :] == 0xEE).all()
    data = packed[0][: sizes[0]]
    for kernels in (native, twin):
        unpacked = np.empty(len(array), np.uint32)
        kernels.unpack_rows(data, 2**32, unpacked)
        np.testing.assert_array_equal(unpacked, array)
        if len(array):
            with pytest.raises(ValueError):
                kernels.unpack_rows(data, int(array[-1]), unpacked)
            with pytest.raises(ValueError):
                kernels.unpack_rows(data[:-1], 2**32, unpacked)
        with pytest.raises(ValueError):
            kernels.unpack_rows(data, 2**32, np.empty(len(array) + 1, np.uint32))
        with pytest.raises(ValueError):
            kernels.unpack_rows(bytes(data) + b"\0", 2**32, unpacked)


@given(data=st.binary(max_size=40), rows=st.integers(0, 12), limit=st.integers(0, 2**33))
@settings(max_examples=1000)
def test_any_bytes_unpack_alike_or_not_at_all(native: ModuleType, data: bytes, rows: int, limit: int) -> None:
    results: list[list[int] | None] = []
    for kernels in (native, twin):
        out = np.zeros(rows, np.uint32)
        try:
            kernels.unpack_rows(data, min(limit, 2**32), out)
        except ValueError:
            results.append(None)
        else:
            assert (np.diff(out.astype(np.int64)) > 0).all()
            assert not rows or out[-1] < limit
            results.append(out.tolist())
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x80\x80\x80\x80\x00",  # a gap of six bytes
        b"\xff\xff\xff\xff\x7f",  # a gap of 2^35 - 1
        b"\x80\x80\x80\x80\x10",  # a gap of 2^32
        b"\x80",  # a gap that does not end
    ],
)
def test_gaps_beyond_any_row_are_refused(kernel: ModuleType, data: bytes) -> None:
    with pytest.raises(ValueError):
        kernel.unpack_rows(data, 2**32, np.empty(1, np.uint32))


def test_rows_beyond_32_bits_are_refused_whatever_the_limit(native: ModuleType) -> None:
    with pytest.raises(ValueError):
        native.unpack_rows(b"\xff\xff\xff\xff\x7f", 2**62, np.empty(1, np.uint32))


@pytest.mark.parametrize("rows", [[1, 1], [2, 1], [0, 5, 5]])
def test_rows_that_do_not_ascend_are_refused(kernel: ModuleType, rows: list[int]) -> None:
    with pytest.raises(ValueError):
        kernel.pack_rows(np.array(rows, np.uint32), np.empty(100, np.uint8))


def test_packing_needs_five_bytes_a_row(kernel: ModuleType) -> None:
    with pytest.raises(ValueError):
        kernel.pack_rows(np.arange(3, dtype=np.uint32), np.empty(14, np.uint8))


@pytest.mark.parametrize("exponent", [-100, -7, 0, 10, 100, 119])
def test_every_finite_half_widens_exactly(kernel: ModuleType, exponent: int) -> None:
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    halves = every[(every & 0x7C00) != 0x7C00]
    floats = np.empty(len(halves), np.float32)
    kernel.widen_halves(halves, exponent, floats)
    expected = np.ldexp(halves.view(np.float16).astype(np.float64), -exponent)
    assert floats.tobytes() == expected.astype(np.float32).tobytes()
    assert (floats.astype(np.float64) == expected).all()


def test_halves_that_are_not_finite_are_refused(kernel: ModuleType) -> None:
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    for special in every[(every & 0x7C00) == 0x7C00][::37]:
        halves = np.array([0, special, 0x3C00], np.uint16)
        with pytest.raises(ValueError):
            kernel.widen_halves(halves, 0, np.empty(3, np.float32))


@pytest.mark.parametrize("exponent", [-120, 120, 1000])
def test_exponents_beyond_float32_are_refused(kernel: ModuleType, exponent: int) -> None:
    with pytest.raises(ValueError):
        kernel.widen_halves(np.zeros(2, np.uint16), exponent, np.empty(2, np.float32))


def test_widening_needs_room_for_each(kernel: ModuleType) -> None:
    with pytest.raises(ValueError):
        kernel.widen_halves(np.zeros(2, np.uint16), 0, np.empty(3, np.float32))


@given(data=st.binary(max_size=120), width=st.integers(1, 8))
@settings(max_examples=200)
def test_planes_split_alike_and_join_again(native: ModuleType, data: bytes, width: int) -> None:
    values = np.frombuffer(data[: len(data) // width * width], np.uint8)
    split = [np.empty_like(values) for _ in range(2)]
    for kernels, out in zip((native, twin), split, strict=True):
        kernels.split_planes(values, width, out)
        joined = np.empty_like(values)
        kernels.join_planes(out, width, joined)
        assert joined.tobytes() == values.tobytes()
    assert split[0].tobytes() == split[1].tobytes()
    assert split[0][: len(values) // width].tobytes() == values[::width].tobytes()


@pytest.mark.parametrize("name", ["split_planes", "join_planes"])
def test_planes_need_whole_values(kernel: ModuleType, name: str) -> None:
    with pytest.raises(ValueError):
        getattr(kernel, name)(np.zeros(7, np.uint8), 2, np.zeros(7, np.uint8))
    with pytest.raises(ValueError):
        getattr(kernel, name)(np.zeros(8, np.uint8), 2, np.zeros(6, np.uint8))
