"""The update codec: what goes in comes out; what never went in ends in a CodecError."""

from __future__ import annotations

import struct
import tracemalloc
from typing import ClassVar

import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.exchange.conftest import floats_of, made_update, same_bits, unpacked

from mlless import kernels
from mlless.errors import CodecError
from mlless.exchange import codec
from mlless.exchange.update import Update, entries
from mlless.job import Compression
from mlless.kernels.arrays import TableUpdate
from mlless.replica import Replica, TableShape

shapes_of_tables = st.lists(
    st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda s: TableShape("table", *s)),
    min_size=1,
    max_size=3,
)
compressions = st.sampled_from(["none", "zstd"])
SHAPES = [TableShape("users", 50, 11), TableShape("items", 300, 11)]
HEAD = struct.Struct("<2sBBBI")
TABLE = struct.Struct("<IIIb")
HALF, ZSTD = 1, 2


def encoded(update: Update, compression: Compression) -> bytes:
    return bytes(codec.seal(codec.pack(update, compression), compression))


def sealed(data: bytes) -> bytes:
    """Return the bytes with the checksum that they ought to have."""
    checksum = xxhash.xxh3_64_intdigest(data[:5] + data[9:]) & 0xFFFFFFFF
    return data[:5] + struct.pack("<I", checksum) + data[9:]


def by_hand(
    flags: int, parts: list[tuple[int, int, int, int]], body: bytes, tables: int | None = None
) -> bytes:
    """Return an update with any headers and body, and a valid checksum."""
    head = HEAD.pack(b"MU", codec.VERSION, flags, len(parts) if tables is None else tables, 0)
    return sealed(head + b"".join(TABLE.pack(*part) for part in parts) + body)


def refused(data: bytes, shapes: list[TableShape], replica: Replica | None = None) -> str:
    """Return what is said of bytes that are no update; the replica must be left as it was."""
    replica = replica or Replica(shapes)
    with pytest.raises(CodecError, match="place") as caught:
        replica.merge({"place": codec.opened(data, shapes, "place")}, "sum", 1)
    assert not any(table.shared.any() for table in replica.tables)
    return str(caught.value)


@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=shapes_of_tables,
    half=st.booleans(),
    density=st.sampled_from([0.03, 0.5, 1.0]),
    share=st.sampled_from([0.0, 0.1, 1.0]),
    compression=compressions,
)
@example(seed=1, shapes=[TableShape("all", 1, 1)], half=True, density=1.0, share=1.0, compression="zstd")
@example(
    seed=1, shapes=[TableShape("none", 7, 9)] * 3, half=False, density=1.0, share=0.0, compression="none"
)
@example(seed=1, shapes=[TableShape("none", 7, 9)] * 3, half=True, density=1.0, share=0.0, compression="zstd")
@settings(max_examples=400)
def test_what_is_decoded_is_what_was_encoded(
    seed: int,
    shapes: list[TableShape],
    half: bool,
    density: float,
    share: float,
    compression: Compression,
) -> None:
    update = made_update(seed, shapes, half=half, density=density, share=share)
    data = encoded(update, compression)
    opened = codec.opened(data, shapes, "place")
    assert same_bits(unpacked(opened, shapes), floats_of(update))
    assert bytes(opened)[9:] == bytes(codec.pack(update, compression))[9:], "all but the checksum"


def test_decoded_values_are_the_halves_over_the_power_of_two() -> None:
    update = made_update(3, SHAPES, half=True)
    for table, got in zip(update, unpacked(codec.pack(update, "none"), SHAPES), strict=True):
        expected = np.ldexp(table.values.view(np.float16).astype(np.float64), -table.exponent)
        np.testing.assert_array_equal(got.values, expected)
        assert got.values.dtype == np.float32


def test_without_compression_an_update_is_sealed_where_it_lies() -> None:
    packed = codec.pack(made_update(3, SHAPES, half=False), "none")
    assert codec.seal(packed, "none") is packed


def test_compression_makes_updates_smaller() -> None:
    update = made_update(3, [TableShape("users", 3000, 21)], half=True, share=0.1)
    values = np.full_like(update[0].values, 0x2E66)  # all alike
    alike = (TableUpdate(update[0].rows, update[0].masks, values, 3),)
    assert len(encoded(alike, "zstd")) < len(encoded(alike, "none")) / 3


def test_entries_counts_values() -> None:
    update = made_update(3, SHAPES, half=True)
    assert entries(update) == sum(int(np.bitwise_count(t.masks).sum()) for t in update)
    assert entries(()) == 0


class TestDamage:
    """Bytes that a disk, a network or a stranger has changed."""

    @pytest.mark.parametrize("compression", ["none", "zstd"])
    @pytest.mark.parametrize("half", [False, True])
    def test_no_bit_may_flip(self, compression: Compression, half: bool) -> None:
        shapes = [TableShape("users", 9, 3), TableShape("items", 12, 3)]
        data = encoded(made_update(5, shapes, half=half), compression)
        for place in range(8 * len(data)):
            changed = bytearray(data)
            changed[place // 8] ^= 1 << place % 8
            refused(bytes(changed), shapes)

    @pytest.mark.parametrize("compression", ["none", "zstd"])
    def test_no_byte_may_be_missing_or_too_many(self, compression: Compression) -> None:
        data = encoded(made_update(5, SHAPES, half=True), compression)
        for size in range(len(data)):
            refused(data[:size], SHAPES)
            refused(sealed(data[:size]) if size >= 9 else data[:size], SHAPES)
        for more in (b"\0", b"\xff", data):
            refused(data + more, SHAPES)
            refused(sealed(data + more), SHAPES)

    @given(data=st.binary(max_size=200))
    @settings(max_examples=1500)
    def test_random_bytes_are_no_update(self, data: bytes) -> None:
        refused(data, SHAPES)

    @given(flags=st.integers(0, 3), data=st.binary(max_size=200))
    @settings(max_examples=1500)
    def test_random_bytes_behind_a_valid_head_and_checksum(self, flags: int, data: bytes) -> None:
        survive(sealed(HEAD.pack(b"MU", codec.VERSION, flags, 2, 0) + data), SHAPES)

    @pytest.mark.parametrize("compression", ["none", "zstd"])
    @pytest.mark.parametrize("half", [False, True])
    def test_mutants_with_a_valid_checksum_are_refused_or_fit_the_tables(
        self, compression: Compression, half: bool
    ) -> None:
        """1,500 cases each: whatever passes can be merged and leaves finite numbers."""
        random = np.random.default_rng(7)
        data = encoded(made_update(5, SHAPES, half=half, share=0.2), compression)
        passed = 0
        for _ in range(1500):
            changed = bytearray(data)
            for _ in range(random.integers(1, 4)):
                kind, at = random.integers(0, 4), random.integers(5, len(changed))
                if kind == 0:
                    changed[at] ^= 1 << random.integers(0, 8)
                elif kind == 1:
                    changed[at] = random.choice([0, 1, 127, 128, 255])
                elif kind == 2:
                    del changed[at : at + random.integers(1, 5)]
                else:
                    changed[at:at] = bytes(random.integers(0, 256, random.integers(1, 5)).astype(np.uint8))
            if len(changed) > 9:
                passed += survive(sealed(bytes(changed)), SHAPES)
        assert passed < 1500


def survive(data: bytes, shapes: list[TableShape]) -> bool:
    """Return whether the bytes can be merged; what they leave then are finite numbers."""
    replica = Replica(shapes)
    try:
        replica.merge({"place": codec.opened(data, shapes, "place")}, "sum", 1)
    except CodecError:
        return False
    assert all(np.isfinite(table.shared).all() for table in replica.tables)
    return True


ROW = b"\x00" + b"\x01" + struct.pack("<f", 1.0)  # row 0, first column, 1.0


class TestHostileUpdates:
    """Valid checksums over headers and bodies that lie."""

    shapes: ClassVar = [TableShape("t", 10, 3)]

    def test_by_hand_is_how_an_update_is_made(self) -> None:
        (table,) = unpacked(by_hand(0, [(1, 1, 1, 0)], ROW), self.shapes)
        expected = TableUpdate(np.zeros(1, np.uint32), np.ones((1, 1), np.uint8), np.ones(1, np.float32))
        assert same_bits([table], [expected])

    @pytest.mark.parametrize(
        ("part", "body"),
        [
            pytest.param((11, 1, 1, 0), ROW, id="more rows than the table"),
            pytest.param((2**32 - 1, 2**32 - 1, 2**32 - 1, 0), ROW, id="rows without end"),
            pytest.param((1, 4, 1, 0), ROW, id="more values than columns"),
            pytest.param((1, 1, 6, 0), ROW, id="more bytes than a row takes"),
            pytest.param((1, 1, 0, 0), ROW[1:], id="a row of no bytes"),
            pytest.param((1, 1, 2, 0), b"\x00\x00" + ROW[1:], id="two rows announced as one"),
            pytest.param((1, 1, 1, 0), b"\x0a" + ROW[1:], id="row beyond the table"),
            pytest.param((1, 1, 5, 0), b"\xff\xff\xff\xff\x7f" + ROW[1:], id="row far beyond the table"),
            pytest.param((1, 1, 2, 0), b"\x80\x80" + ROW[1:], id="a gap without an end"),
            pytest.param(
                (2, 2, 10, 0),
                b"\x80\x80\x80\x80\x80\x00\x00\x00\x00\x00" + b"\x01\x01" + bytes(8),
                id="a gap of six bytes",
            ),
            pytest.param((1, 1, 1, 0), b"\x00\x08" + ROW[2:], id="mask beyond the columns"),
            pytest.param((1, 1, 1, 0), b"\x00\x03" + ROW[2:], id="mask of two for one value"),
            pytest.param((1, 2, 1, 0), ROW + bytes(4), id="two values for a mask of one"),
            pytest.param((1, 0, 1, 0), ROW, id="no values for a mask of one"),
            pytest.param((1, 1, 1, 101), ROW, id="exponent too large"),
            pytest.param((1, 1, 1, -101), ROW, id="exponent too small"),
            pytest.param((1, 1, 1, 0), b"\x00\x01" + struct.pack("<f", np.nan), id="not a number"),
            pytest.param((1, 1, 1, 0), b"\x00\x01" + struct.pack("<f", -np.inf), id="infinity"),
            pytest.param((0, 0, 0, 0), b"\x00", id="a byte where none belongs"),
        ],
    )
    @pytest.mark.parametrize("flags", [0, ZSTD])
    def test_a_lie_is_refused(self, part: tuple[int, int, int, int], body: bytes, flags: int) -> None:
        packed = zstandard.ZstdCompressor().compress(body) if flags else body
        refused(by_hand(flags, [part], packed), self.shapes)

    @pytest.mark.parametrize("special", [0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF])
    def test_halves_that_are_not_finite_are_refused(self, special: int) -> None:
        refused(by_hand(HALF, [(1, 1, 1, 0)], b"\x00\x01" + struct.pack("<H", special)), self.shapes)

    @pytest.mark.parametrize("tables", [0, 2, 255])
    def test_another_number_of_tables_is_refused(self, tables: int) -> None:
        refused(by_hand(0, [(1, 1, 1, 0)], ROW, tables), self.shapes)

    @pytest.mark.parametrize(("at", "value"), [(0, b"X"), (2, b"\x02"), (3, b"\x04"), (3, b"\x80")])
    def test_another_magic_version_or_flag_is_refused(self, at: int, value: bytes) -> None:
        data = by_hand(0, [(1, 1, 1, 0)], ROW)
        refused(sealed(data[:at] + value + data[at + 1 :]), self.shapes)

    def test_an_update_of_another_model_is_refused(self) -> None:
        for compression in ("none", "zstd"):
            data = encoded(made_update(5, SHAPES, half=True, share=1.0), compression)
            refused(data, [TableShape("users", 49, 11), SHAPES[1]])
            refused(data, [TableShape("users", 50, 10), SHAPES[1]])
            refused(data, SHAPES[:1])
            refused(data, [])

    def test_what_follows_a_compressed_frame_is_refused(self) -> None:
        frame = zstandard.ZstdCompressor().compress(ROW)
        assert survive(by_hand(ZSTD, [(1, 1, 1, 0)], frame), self.shapes)
        for more in (b"\0", frame, b"\x50\x2a\x4d\x18\x00\x00\x00\x00"):
            refused(by_hand(ZSTD, [(1, 1, 1, 0)], frame + more), self.shapes)

    def test_a_frame_of_unknown_size_is_refused(self) -> None:
        frame = zstandard.ZstdCompressor(write_content_size=False).compress(ROW)
        refused(by_hand(ZSTD, [(1, 1, 1, 0)], frame), self.shapes)

    def test_the_error_says_what_to_do(self) -> None:
        assert "not a valid update" in refused(b"", self.shapes)
        assert "Publish the update again" in refused(b"", self.shapes)


def peak_of(data: bytes, shapes: list[TableShape]) -> int:
    replica = Replica(shapes)
    tracemalloc.start()
    try:
        refused(data, shapes, replica)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestMemory:
    """No bytes make the receiver allocate more than a full update of its model takes."""

    shapes: ClassVar = [TableShape("t", 100_000, 8)]
    full = 100_000 * (5 + 1 + 4 * 8)

    def test_a_bomb_that_announces_its_size_is_refused_before_it_expands(self) -> None:
        bomb = zstandard.ZstdCompressor(level=3).compress(bytes(200_000_000))
        assert len(bomb) < 50_000
        assert peak_of(by_hand(ZSTD, [(1, 1, 1, 0)], bomb), self.shapes) < 1_000_000

    def test_a_bomb_that_announces_more_values_than_the_rows_hold_is_refused_before_it_expands(self) -> None:
        values = 25_000_000
        bomb = zstandard.ZstdCompressor().compress(bytes(2 + 4 * values))
        assert peak_of(by_hand(ZSTD, [(1, values, 1, 0)], bomb), self.shapes) < 1_000_000

    def test_a_frame_that_expands_beyond_its_announced_size_is_cut_off(self) -> None:
        # A content of 2^28 zeros whose header is changed to announce 38 bytes.
        big = bytearray(zstandard.ZstdCompressor(level=1).compress(bytes(1 << 24)))
        parameters = zstandard.get_frame_parameters(bytes(big))
        assert parameters.content_size == 1 << 24
        at = bytes(big).index(struct.pack("<I", 1 << 24))
        big[at : at + 4] = struct.pack("<I", 6)
        assert peak_of(by_hand(ZSTD, [(1, 1, 1, 0)], bytes(big)), self.shapes) < 4_000_000

    @pytest.mark.parametrize("rows", [100_001, 2**31, 2**32 - 1])
    @pytest.mark.parametrize("flags", [0, HALF, ZSTD, HALF | ZSTD])
    def test_headers_that_announce_too_much_cost_nothing(self, rows: int, flags: int) -> None:
        assert peak_of(by_hand(flags, [(rows, rows, rows, 0)], bytes(100)), self.shapes) < 1_000_000

    @pytest.mark.parametrize("flags", [0, HALF])
    def test_a_full_update_announced_in_few_bytes_costs_nothing(self, flags: int) -> None:
        part = (100_000, 800_000, 500_000, 0)
        assert peak_of(by_hand(flags, [part], bytes(100)), self.shapes) < 1_000_000

    def test_a_bomb_within_the_size_of_the_model_stays_within_it(self) -> None:
        size = 500_000 + 100_000 + 4 * 800_000
        bomb = zstandard.ZstdCompressor().compress(bytes(size))
        part = (100_000, 800_000, 500_000, 0)
        # What the frame holds, and the same behind its headers; the twin unpacks rows as 64-bit numbers.
        times = 3 if kernels.NAME == "native" else 9
        assert peak_of(by_hand(ZSTD, [part], bomb), self.shapes) < times * self.full
