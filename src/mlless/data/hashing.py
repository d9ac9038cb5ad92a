"""PURE: the hash of category values, many at a time; the same on every machine and in every version.

The hash of a token of bytes, from a 64-bit state (all arithmetic modulo 2^64):

    h = state
    for each 8 bytes of the token, the last ones filled up with zero bytes:
        h = mix(h ^ those bytes as a little-endian integer)
    hash = mix(h ^ number of bytes in the token)

``mix`` is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): it is one-to-one and lets
every bit of its input decide every bit of its result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Hashes = NDArray[np.uint64]

LONGEST_TOKEN = 4096  # bytes; the work of a block grows with its longest token
_WORD = 8
_GOLDEN = 0x9E3779B97F4A7C15
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(_WORD + 1)], np.uint64)


def mix(h: Hashes) -> Hashes:
    """Return the numbers with their bits mixed."""
    h = h ^ (h >> np.uint64(30))
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return h


def hash_numbers(numbers: NDArray[np.int64], states: Hashes | np.uint64) -> Hashes:
    """Return the hash of each number: what SplitMix64 gives after that number of steps from its state."""
    return mix(numbers.astype(np.uint64) * np.uint64(_GOLDEN) + states)


def hash_tokens(text: Bytes, starts: Places, ends: Places, states: Hashes) -> Hashes:
    """Return the hash of each token ``text[starts[n]:ends[n]]``, from the state ``states[n]``."""
    lengths = ends - starts
    # Behind the text there is room for a whole word, so that one is read at any place of it.
    padded = np.concatenate([text, np.zeros(_WORD, np.uint8)])
    words = np.ndarray((len(text) + 1,), np.dtype("<u8"), padded.data, strides=(1,))
    h = states.copy()
    open_: slice | NDArray[np.intp] = slice(None)
    for at in range(0, int(lengths.max(initial=0)), _WORD):
        if at:
            open_ = np.flatnonzero(lengths > at)
        left = np.minimum(lengths[open_] - at, _WORD)
        word = words[starts[open_] + at] & _MASKS[left]
        # A token without bytes has no word: its mask is 0, and it must not be mixed either.
        h[open_] = np.where(left > 0, mix(h[open_] ^ word), h[open_])
    return mix(h ^ lengths.astype(np.uint64))


def hash_name(name: str, seed: int) -> int:
    """Return the hash of a column's name: the state from which the column's values are hashed."""
    data = np.frombuffer(name.encode(), np.uint8)
    state = np.array([(seed + _GOLDEN) % (1 << 64)], np.uint64)
    return int(hash_tokens(data, np.array([0]), np.array([len(data)]), state)[0])
