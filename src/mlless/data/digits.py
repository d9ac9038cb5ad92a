"""PURE: writes arrays of numbers as text; the readers' ``numbers`` reads such text.

Each function returns a block of characters with a row for each number. Unused places are zero bytes.
``lines`` puts blocks side by side and leaves the unused places out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.uint8]

_ZERO = np.uint8(ord("0"))
_HEX = np.frombuffer(b"".join(f"{n:02x}".encode() for n in range(256)), np.uint16)


def lines(blocks: Sequence[Block | bytes]) -> bytes:
    """Return the text of the blocks side by side; bytes are the same in every line."""
    rows = next(len(block) for block in blocks if not isinstance(block, bytes))
    wide = [
        np.broadcast_to(np.frombuffer(block, np.uint8), (rows, len(block)))
        if isinstance(block, bytes)
        else block
        for block in blocks
    ]
    text: Block = np.concatenate(wide, axis=1).ravel()
    return bytes(text[text != 0].data)


def whole(numbers: NDArray[np.integer], there: NDArray[np.bool_] | None = None) -> Block:
    """Return whole numbers in decimal; nothing where they are not ``there``."""
    rest = np.abs(numbers).astype(np.uint64)
    width = len(str(int(rest.max(initial=0))))
    block = np.zeros((len(numbers), width + 1), np.uint8)
    for place in range(width, 0, -1):
        shorter = rest // np.uint64(10)
        digit = (rest - shorter * np.uint64(10)).astype(np.uint8) + _ZERO
        block[:, place] = digit if place == width else np.where(rest > 0, digit, 0)
        rest = shorter
    below = np.flatnonzero(numbers < 0)
    if len(below):
        first = np.argmax(block[below] != 0, axis=1)
        block[below, first - 1] = ord("-")
    if there is not None:
        block[~there] = 0
    return block


def tenths(numbers: NDArray[np.floating]) -> Block:
    """Return numbers from 0 with one digit after the point, as Python writes them."""
    times_ten = np.rint(numbers * 10).astype(np.int64)
    digit = (times_ten % 10).astype(np.uint8)[:, None] + _ZERO
    point = np.full((len(numbers), 1), ord("."), np.uint8)
    return np.concatenate([whole(times_ten // 10), point, digit], axis=1)


def hexadecimal(numbers: NDArray[np.uint32], there: NDArray[np.bool_]) -> Block:
    """Return numbers as eight hexadecimal digits; nothing where they are not ``there``."""
    halves: NDArray[np.uint8] = numbers.astype(">u4").view(np.uint8)
    block = _HEX[halves].view(np.uint8).reshape(len(numbers), 8)
    block[~there] = 0
    return block
