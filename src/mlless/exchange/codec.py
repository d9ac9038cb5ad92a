"""The update codec: rows as gaps, bit masks of columns, float32 or float16 values.

    "MU" version flags tables crc32          the checksum covers all but itself
    rows values row_bytes exponent           one group a table
    packed rows | masks | values             one group a table; all of it one zstd frame if flagged

Little-endian throughout. With compression the values are split into byte planes, for exponents
compress and mantissas do not. A receiver knows the tables' shapes, so nothing in the bytes can make
it allocate more than a full update of that model takes.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import zstandard
from numpy.typing import NDArray

from mlless import kernels
from mlless.errors import CodecError
from mlless.exchange.update import Update
from mlless.job import Compression
from mlless.kernels.arrays import Bytes, Decoded, Floats
from mlless.replica import TableShape

VERSION = 1
_MAGIC = b"MU"
_HEAD = struct.Struct("<2sBBB")
_CHECKSUM = struct.Struct("<I")
_TABLE = struct.Struct("<IIIb")
_HALF, _ZSTD = 1, 2
_LEVEL = 1


def encode(update: Update, compression: Compression) -> list[bytes | memoryview]:
    """Return the update as chunks to be stored one after the other.

    Without compression the chunks are views of the update's memory.
    """
    compressed = compression == "zstd"
    headers: list[bytes | memoryview] = []
    body: list[bytes | memoryview] = []
    for table in update:
        packed = np.empty(5 * len(table.rows), np.uint8)
        row_bytes = kernels.pack_rows(table.rows, packed)
        headers.append(_TABLE.pack(len(table.rows), len(table.values), row_bytes, table.exponent))
        values = table.values.view(np.uint8)
        if compressed:
            planes = np.empty_like(values)
            kernels.split_planes(values, table.values.itemsize, planes)
            values = planes
        body += [packed[:row_bytes].data, table.masks.reshape(-1).data, values.data]
    if compressed:
        body = [_compressor().compress(b"".join(body))]
    flags = (_HALF if update[0].half else 0) | (_ZSTD if compressed else 0)
    head = _HEAD.pack(_MAGIC, VERSION, flags, len(update))
    checksum = zlib.crc32(head)
    for chunk in headers + body:
        checksum = zlib.crc32(chunk, checksum)
    return [head + _CHECKSUM.pack(checksum), *headers, *body]


def decode(data: bytes | memoryview, shapes: Sequence[TableShape]) -> list[Decoded]:
    """Return an update's tables, ready to merge; CodecError if it is not one for these ``shapes``."""
    try:
        return _decode(memoryview(data), shapes)
    except (struct.error, ValueError, zstandard.ZstdError) as error:
        raise CodecError("not a valid update", found=str(error), cure="publish the update again") from error


def decoded(update: Update) -> list[Decoded]:
    """Return what ``decode`` gives after ``encode``, without the bytes."""
    return [Decoded(table.rows, table.masks, _as_floats(table.values, table.exponent)) for table in update]


@functools.cache
def _compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=_LEVEL)


def _decode(data: memoryview, shapes: Sequence[TableShape]) -> list[Decoded]:
    magic, version, flags, tables = _HEAD.unpack_from(data)
    (checksum,) = _CHECKSUM.unpack_from(data, _HEAD.size)
    at = _HEAD.size + _CHECKSUM.size
    if magic != _MAGIC or version != VERSION or flags & ~(_HALF | _ZSTD) or tables != len(shapes):
        raise ValueError(f"magic {magic!r}, version {version}, flags {flags}, {tables} tables")
    if zlib.crc32(data[at:], zlib.crc32(data[: _HEAD.size])) != checksum:
        raise ValueError("checksum differs")
    width = 2 if flags & _HALF else 4
    parts = []
    for shape in shapes:
        rows, values, row_bytes, exponent = _TABLE.unpack_from(data, at)
        at += _TABLE.size
        if rows > shape.rows or row_bytes > 5 * rows or values > rows * shape.columns or abs(exponent) > 100:
            raise ValueError(f"{rows} rows, {values} values for table {shape.name}")
        parts.append((rows, values, row_bytes, exponent))
    size = sum(
        row_bytes + rows * _mask_bytes(shape) + values * width
        for (rows, values, row_bytes, _), shape in zip(parts, shapes, strict=True)
    )
    body = _expand(data[at:], size) if flags & _ZSTD else np.frombuffer(data, np.uint8, offset=at)
    if len(body) != size:
        raise ValueError(f"{len(body)} bytes where {size} are announced")
    result, start = [], 0
    for part, shape in zip(parts, shapes, strict=True):
        table, start = _table(body, start, part, shape, width, bool(flags & _ZSTD))
        result.append(table)
    return result


def _table(
    body: Bytes, start: int, part: tuple[int, int, int, int], shape: TableShape, width: int, planes: bool
) -> tuple[Decoded, int]:
    rows, values, row_bytes, exponent = part
    ids = np.empty(rows, np.uint32)
    kernels.unpack_rows(body[start : start + row_bytes], shape.rows, ids)
    start += row_bytes
    masks = body[start : start + rows * _mask_bytes(shape)].reshape(rows, _mask_bytes(shape))
    start += masks.size
    spare = shape.columns % 8
    if int(np.bitwise_count(masks).sum()) != values or (spare and (masks[:, -1] >> spare).any()):
        raise ValueError(f"the masks of table {shape.name} do not mark {values} values")
    raw = body[start : start + values * width]
    start += raw.size
    if planes:
        joined = np.empty_like(raw)
        kernels.join_planes(raw, width, joined)
        raw = joined
    elif raw.ctypes.data % width:  # a table before it may have ended at an odd place
        raw = raw.copy()
    floats = _as_floats(raw.view(np.uint16) if width == 2 else raw.view(np.float32), exponent)
    if width == 4 and not np.isfinite(floats).all():
        raise ValueError("a value is not finite")
    return Decoded(ids, masks, floats), start


def _as_floats(values: NDArray[np.float32] | NDArray[np.uint16], exponent: int) -> Floats:
    if values.dtype == np.float32:
        return values.view(np.float32)
    floats = np.empty(len(values), np.float32)
    kernels.widen_halves(values.view(np.uint16), exponent, floats)
    return floats


def _mask_bytes(shape: TableShape) -> int:
    return (shape.columns + 7) // 8


def _expand(frame: memoryview, size: int) -> Bytes:
    # A frame that announces another size is refused before any memory is taken for it.
    if zstandard.frame_content_size(frame) != size:
        raise ValueError("the compressed part announces another size")
    return np.frombuffer(zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False), np.uint8)
