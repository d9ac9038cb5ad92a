"""Packed text is recognised by its bytes, unpacked as a stream, and refused where it is damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from mlless.data.partition import partition
from mlless.data.readers import Reading, open_source, read_ratings
from mlless.data.readers.text import TextStream
from mlless.errors import InputError

TEXT = "".join(f"{n}\t{n * 7919 % 10007}\t{n % 5}\n" for n in range(50_000)).encode()


def zipped(*names: str, data: bytes = TEXT) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("a")
        for name in names:
            archive.writestr(name, data)
    return file.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "zip": lambda data: zipped("a/u.data", data=data),
}
STREAMS = [name for name in PACK if name != "zip"]


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def put(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return put


Put = Callable[[str, bytes], Path]


@pytest.mark.parametrize("packing", PACK)
def test_packed_text_is_the_text(put: Put, packing: str) -> None:
    data = PACK[packing](TEXT)
    source = open_source(put("u.data", data))
    assert (source.format, source.start) == ("ratings", TEXT[: 1 << 16])
    chunks = list(read_ratings(source))
    assert np.concatenate([chunk.rows.users for chunk in chunks]).tolist() == list(range(50_000))
    done = [chunk.done for chunk in chunks]
    assert done == sorted(done)
    assert 0.9 * len(data) < done[-1] <= len(data)


@pytest.mark.parametrize("packing", STREAMS)
def test_members_follow_each_other(put: Put, packing: str) -> None:
    pack = PACK[packing]
    joined = pack(TEXT[:1000]) + pack(b"") + pack(TEXT[1000:])
    with TextStream(open_source(put("u.data", joined)).parts[0]) as stream:
        assert stream.read() == TEXT


def test_gzip_may_be_padded_and_zstd_may_have_frames_to_skip(put: Put) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    zstd = PACK["zstd"]
    for data in (gzip.compress(TEXT) + bytes(1000), zstd(TEXT[:9]) + skippable + zstd(TEXT[9:])):
        with TextStream(open_source(put("u.data", data)).parts[0]) as stream:
            assert stream.read() == TEXT


@pytest.mark.parametrize("packing", STREAMS)
@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_truncated(put: Put, packing: str, cut: float) -> None:
    data = PACK[packing](TEXT)
    path = put("u.data", data[: int(cut * len(data))])
    with pytest.raises(InputError, match=rf"u.data: a truncated {packing} file\. Fetch it again"):
        list(read_ratings(open_source(path), Reading(skip_malformed=True)))


@pytest.mark.parametrize("packing", PACK)
def test_damaged(put: Put, packing: str) -> None:
    data = bytearray(PACK[packing](TEXT))
    middle = len(data) // 2
    data[middle : middle + 50] = bytes(50)
    path = put("u.data", bytes(data))
    with pytest.raises(InputError, match=rf"u.data: a damaged {packing} file: found .*Fetch it again"):
        list(read_ratings(open_source(path), Reading(skip_malformed=True)))


def test_a_zip_file_cut_short_is_damaged(put: Put) -> None:
    with pytest.raises(InputError, match="a damaged zip file"):
        open_source(put("u.zip", zipped("u.data")[:-100]))


@pytest.mark.parametrize(
    ("names", "found"),
    [((), "found none"), (("b.csv", "c.csv"), r"expected exactly one, found 2: b\.csv, c\.csv")],
)
def test_a_zip_file_holds_exactly_one(put: Put, names: tuple[str, ...], found: str) -> None:
    with pytest.raises(InputError, match=f"not one file in this zip file.*{found}.*Unpack it"):
        open_source(put("u.zip", zipped(*names)))


@pytest.mark.parametrize("name", ["xl/workbook.xml", "xl/workbook.bin", "content.xml"])
def test_a_spreadsheet_is_to_be_saved_as_csv(put: Put, name: str) -> None:
    with pytest.raises(
        InputError, match=r"u\.xlsx: a spreadsheet, .*expected text or Parquet\. Save it as CSV"
    ):
        open_source(put("u.xlsx", zipped("[Content_Types].xml", name)))


def test_a_zip_file_that_is_encrypted_is_refused(put: Put) -> None:
    data = bytearray(zipped("u.data"))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.rindex(header)
        data[at + flags] |= 1
    with pytest.raises(InputError, match=r"encrypted: found u\.data"):
        open_source(put("u.zip", bytes(data)))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".zip"])
def test_a_name_that_promises_too_much_is_refused(put: Put, suffix: str) -> None:
    with pytest.raises(InputError, match=r"not a \w+ file, for all its name"):
        open_source(put(f"u.data{suffix}", TEXT))


def test_a_name_of_another_packing_is_refused(put: Put) -> None:
    with pytest.raises(InputError, match="not a gzip file, for all its name: found a zstd file"):
        open_source(put("u.data.gz", PACK["zstd"](TEXT)))


def test_packed_parquet_is_refused(put: Put) -> None:
    with pytest.raises(InputError, match=r"packed Parquet.*Unpack it first"):
        open_source(put("a", gzip.compress(b"PAR1" + bytes(99))))


def test_a_byte_order_mark_is_passed_over_in_packed_text_too(put: Put, tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf1 0:1\n0 1:1\n"
    for name, data in (("plain", text), ("packed", gzip.compress(text))):
        assert partition(put(name, data), tmp_path / f"d-{name}", validation=0.0).manifest.rows == 2


def test_what_is_read_is_bounded_by_what_is_asked_for(put: Put) -> None:
    with TextStream(
        open_source(put("u", gzip.compress(b"1\t2\t3\n" + b" " * 5_000_000 + b"\n"))).parts[0]
    ) as stream:
        assert len(stream.read(10)) == 10
        assert stream.peek(5) == b" " * 5
        assert len(stream.read(3_000_000)) == 3_000_000
        assert len(stream.read()) == 5_000_007 - 3_000_010
        assert stream.read(1) == b""
