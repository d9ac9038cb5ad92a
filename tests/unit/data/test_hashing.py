"""The hash of categories: as it is written down, for any bytes, and the same for ever."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.hashing import hash_name, hash_tokens

BITS = (1 << 64) - 1
GOLDEN = ["fb25a90c1b9fa4dc", "ff6f7744693781de", "e598c75915b968be"]


def mix(h: int) -> int:
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & BITS
    return h ^ (h >> 31)


def hash_of(token: bytes, state: int) -> int:
    """The definition, a token at a time."""
    h = state
    for at in range(0, len(token), 8):
        h = mix(h ^ int.from_bytes(token[at : at + 8], "little"))
    return mix(h ^ len(token))


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, BITS)), max_size=30), st.binary(max_size=9))
def test_many_tokens_are_hashed_as_defined(tokens: list[tuple[bytes, int]], behind: bytes) -> None:
    text = np.frombuffer(b"".join(token for token, _ in tokens) + behind, np.uint8)
    ends = np.cumsum([len(token) for token, _ in tokens], dtype=np.int64)
    starts = ends - [len(token) for token, _ in tokens]
    states = np.array([state for _, state in tokens], np.uint64)
    found = hash_tokens(text, starts.astype(np.int64), ends, states)
    assert found.tolist() == [hash_of(token, state) for token, state in tokens]


def test_the_hash_never_changes() -> None:
    """These values are in data sets and models that exist."""
    token = np.frombuffer(b"68fd1e64", np.uint8)
    states = np.array([hash_name("C1", 0), hash_name("C2", 0), hash_name("C1", 7)], np.uint64)
    starts, ends = np.zeros(3, np.int64), np.full(3, 8)
    found = [f"{value:016x}" for value in hash_tokens(token, starts, ends, states).tolist()]
    assert found == GOLDEN
    assert hash_name("C1", 0) == hash_of(b"C1", 0x9E3779B97F4A7C15)


def test_hashes_spread_evenly() -> None:
    tokens = [f"{n:x}".encode() for n in range(50_000)]
    ends = np.cumsum([len(token) for token in tokens], dtype=np.int64)
    starts = np.append(0, ends[:-1])
    states = np.full(len(tokens), hash_name("C1", 0), np.uint64)
    places = hash_tokens(np.frombuffer(b"".join(tokens), np.uint8), starts, ends, states) % np.uint64(1000)
    counts = np.bincount(places.astype(np.int64), minlength=1000)
    chi_square = ((counts - 50) ** 2 / 50).sum()
    assert 850 < chi_square < 1150  # 999 expected, standard deviation 45
