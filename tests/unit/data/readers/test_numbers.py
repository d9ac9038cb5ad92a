"""Numbers in text: the vectorised form gives what the one-at-a-time form gives, or declines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.readers.numbers import (
    BIGGEST,
    Irregular,
    Malformed,
    finite_number,
    finite_numbers,
    whole_number,
    whole_numbers,
)

ODD = ["", "-", "+", ".", "-.", "1.", ".5", "+.5", "1e5", "1e", "e5", "1e400", "3e38", "4e38", "1_0", "0x1"]
ODD += [
    "nan",
    "inf",
    "-inf",
    "1..2",
    "1-2",
    "--1",
    "0" * 30,
    "9" * 19,
    "9" * 20,
    str(BIGGEST),
    str(BIGGEST + 1),
]
ODD += ["٣", "1 ", "-0", "0.1", "123456789012345.6", "12345678901234567890", "0.12345678901234567", "1E-7"]
tokens = st.one_of(
    st.sampled_from(ODD),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-1000, 1000, places=4).map(str),
    st.text("0123456789+-.eE", max_size=8),
).map(str.encode)


def laid_out(words: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lengths = np.array([len(word) for word in words], np.int64)
    ends = np.cumsum(lengths + 1) - 1
    return np.frombuffer(b" ".join([*words, b""]) or b" ", np.uint8), ends - lengths, ends


@given(st.lists(tokens, min_size=1, max_size=5))
def test_whole_numbers_are_those_read_one_at_a_time(words: list[bytes]) -> None:
    try:
        found = whole_numbers(*laid_out(words))
    except Irregular:
        return
    assert found.tolist() == [whole_number(word, "an id") for word in words]


@given(st.lists(tokens, min_size=1, max_size=5))
def test_finite_numbers_are_those_read_one_at_a_time(words: list[bytes]) -> None:
    try:
        expected = [finite_number(word, "a value") for word in words]
    except Malformed:
        with pytest.raises(Irregular):
            finite_numbers(*laid_out(words))
        return
    if not any(b" " in word for word in words):
        found = finite_numbers(*laid_out(words))
        assert found.view(np.int64).tolist() == np.array(expected).view(np.int64).tolist()


@given(st.lists(st.integers(0, BIGGEST), max_size=5))
def test_ids_are_exact_up_to_the_biggest(ids: list[int]) -> None:
    assert whole_numbers(*laid_out([str(number).encode() for number in ids])).tolist() == ids


@pytest.mark.parametrize(
    "token", [b"-1", b"+1", b"1.0", b"", b"x", b"9223372036854775808", b"1" * 5000, "٣".encode()]
)
def test_what_is_no_id_is_refused(token: bytes) -> None:
    with pytest.raises(Malformed, match="whole number from 0 to 2\\^63-1"):
        whole_number(token, "a user id")
