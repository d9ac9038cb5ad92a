"""The update codec: rows as gaps, bit masks of columns, float32 or float16 values.

    "MU" version flags tables checksum       32 bits of XXH3; it covers all but itself
    rows values row_bytes exponent           one group a table
    packed rows | masks | values             one group a table; all of it one zstd frame if flagged

Little-endian throughout. With compression the values are split into byte planes, for exponents
compress and mantissas do not. The kernels write and read this layout, all but the checksum and the
frame: here a packed update is sealed for its way, and opened again. Sealed or not, a receiver knows
the tables' shapes, so nothing in the bytes can make it allocate more than a full update of that
model takes.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence

import numpy as np
import xxhash
import zstandard

from mlless import kernels
from mlless.errors import CodecError
from mlless.exchange.update import Update
from mlless.job import Compression
from mlless.replica import TableShape

VERSION = 1
_HEAD, _FLAGS, _TABLES, _CHECKSUM = 9, 3, 4, 5  # bytes of the head, and where parts of it stand
_PART = 13
_ZSTD = 2
_LEVEL = 1


def pack(update: Update, compression: Compression) -> memoryview:
    """Return the update's bytes, ready to merge, or to be sealed with the same compression."""
    room = sum(_PART + 5 * len(part.rows) + part.masks.nbytes + part.values.nbytes for part in update)
    out = np.empty(_HEAD + room, np.uint8)
    half = int(update[0].values.itemsize == 2)
    size = kernels.pack_update(list(update), half, int(compression == "zstd"), out)
    return out.data[:size]


def seal(packed: memoryview, compression: Compression) -> bytes | memoryview:
    """Return a packed update with its checksum, compressed if wanted; ``packed`` may be what is returned."""
    if compression == "zstd":
        start = _HEAD + _PART * packed[_TABLES]
        packed = memoryview(bytearray(packed[:start]) + _compressor().compress(packed[start:]))
    struct.pack_into("<I", packed, _CHECKSUM, _checksum(packed))
    return packed


def opened(data: bytes | memoryview, shapes: Sequence[TableShape], where: str) -> bytes | memoryview:
    """Return the packed update in sealed bytes; CodecError, with ``where`` as the place, if they are damaged.

    Whether they fit tables of these ``shapes`` is for the merge to say.
    """
    data = memoryview(data)
    if len(data) < _HEAD or int.from_bytes(data[_CHECKSUM:_HEAD], "little") != _checksum(data):
        raise CodecError(
            "not a valid update", where=where, found="another checksum", cure="publish the update again"
        )
    if not data[_FLAGS] & _ZSTD:
        return data
    start = _HEAD + _PART * data[_TABLES]
    try:
        return bytes(data[:start]) + _expand(data[start:], shapes)
    except zstandard.ZstdError as error:
        raise CodecError(
            "not a valid update", where=where, found=str(error), cure="publish the update again"
        ) from error


def _checksum(data: memoryview) -> int:
    digest = xxhash.xxh3_64(data[:_CHECKSUM])
    digest.update(data[_HEAD:])
    return digest.intdigest() & 0xFFFFFFFF


@functools.cache
def _compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=_LEVEL)


def _expand(frame: memoryview, shapes: Sequence[TableShape]) -> bytes:
    # A frame that announces more than a full update is refused before any memory is taken for it.
    largest = sum(shape.rows * (5 + (shape.columns + 7) // 8 + 4 * shape.columns) for shape in shapes)
    if not 0 <= zstandard.frame_content_size(frame) <= largest:
        raise zstandard.ZstdError("the compressed part announces another size")
    return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
