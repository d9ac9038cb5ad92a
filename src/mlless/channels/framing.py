"""Messages over a stream of bytes: each follows on its length."""

from __future__ import annotations

import struct

from mlless.errors import CodecError

LENGTH = struct.Struct("<I")


def framed(data: bytes) -> bytes:
    """Return a message as it goes over a stream."""
    return LENGTH.pack(len(data)) + data


def length_of(head: bytes | bytearray, largest: int, where: str) -> int:
    """Return the length that ``head`` tells; CodecError if it is more than ``largest`` bytes."""
    (length,) = LENGTH.unpack_from(head)
    if length > largest:
        raise CodecError(
            "message too long", where=where, expected=f"at most {largest:,} bytes", found=f"{length:,}"
        )
    return int(length)


class Frames:
    """Cuts a stream of bytes into messages, each of at most ``largest`` bytes."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._buffer = bytearray()

    def feed(self, data: bytes, where: str) -> list[bytes]:
        """Return the messages completed by ``data``; CodecError if one is too long."""
        self._buffer += data
        done, at = [], 0
        while len(self._buffer) - at >= LENGTH.size:
            length = length_of(self._buffer[at : at + LENGTH.size], self.largest, where)
            if len(self._buffer) - at - LENGTH.size < length:
                break
            at += LENGTH.size
            done.append(bytes(self._buffer[at : at + length]))
            at += length
        del self._buffer[:at]
        return done
