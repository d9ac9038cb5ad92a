"""Numbers in text, many at a time: exact, and no more tolerant than the one-at-a-time form.

A vectorised function raises Irregular when any token needs a closer look; it never guesses.
The grammar is plain ASCII: no underscores, no hexadecimal, no "nan" or "inf".
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

BIGGEST = 2**63 - 1
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(rb"[0-9]+")
_EXACT_DIGITS = 15  # a mantissa below 10**15 and a power of ten up to 10**15 are exact in float64,
_POWERS = 10.0 ** np.arange(_EXACT_DIGITS + 1)  # so their quotient is the correctly rounded value
_LONGEST_WHOLE = 19  # digits of 2**63 - 1; 19 digits always fit in uint64


class Irregular(Exception):
    """A block of text is not as regular as the vectorised parser needs it."""


class Malformed(Exception):
    """A line is not what it should be: ``expected`` and the offending text, ``found``."""

    def __init__(self, expected: str, found: bytes | str, cure: str | None = None) -> None:
        super().__init__(expected, found)
        self.expected, self.cure = expected, cure
        self.found = found.decode("utf-8", "backslashreplace") if isinstance(found, bytes) else found


def whole_number(token: bytes, what: str, biggest: int = BIGGEST) -> int:
    """Return the whole number from 0 to ``biggest`` in ``token``, or raise Malformed."""
    text = token.strip()
    # The length is looked at first: Python refuses to read integers of thousands of digits.
    if _WHOLE.fullmatch(text) and len(text.lstrip(b"0")) <= _LONGEST_WHOLE:
        number = int(text)
        if number <= biggest:
            return number
    limit = "2^63-1" if biggest == BIGGEST else str(biggest)
    raise Malformed(f"{what} that is a whole number from 0 to {limit}", token)


def finite_number(token: bytes, expected: str) -> float:
    """Return the number in ``token`` if it is finite in float32, or raise Malformed."""
    text = token.strip()
    if _NUMBER.fullmatch(text):
        number = float(text)
        if fits_float32(np.array([number])):
            return number
    raise Malformed(expected, token)


def fits_float32(numbers: NDArray[np.float64]) -> bool:
    """Return whether all ``numbers`` are finite, also as float32."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(numbers.astype(np.float32)).all())


def whole_numbers(text: Bytes, starts: Places, ends: Places) -> NDArray[np.int64]:
    """Return the whole numbers from 0 to 2^63-1 in the tokens ``text[starts[n]:ends[n]]``."""
    lengths = ends - starts
    if len(lengths) == 0:
        return np.zeros(0, np.int64)
    if lengths.min() < 1 or lengths.max() > _LONGEST_WHOLE:
        raise Irregular
    total = np.zeros(len(starts), np.uint64)
    for place in range(int(lengths.max())):
        inside = place < lengths
        digits = text[np.minimum(starts + place, len(text) - 1)] - np.uint8(ord("0"))
        if (digits[inside] > 9).any():
            raise Irregular
        total = np.where(inside, total * np.uint64(10) + digits, total)
    if total.max() > BIGGEST:
        raise Irregular
    return total.astype(np.int64)


def finite_numbers(text: Bytes, starts: Places, ends: Places) -> NDArray[np.float64]:
    """Return the numbers in the tokens ``text[starts[n]:ends[n]]``, all finite in float32."""
    if len(starts) == 0:
        return np.zeros(0, np.float64)
    if (ends <= starts).any():
        raise Irregular
    first = text[starts]
    minus = first == ord("-")
    digits_from = starts + (minus | (first == ord("+")))
    lengths = ends - digits_from
    plain = lengths <= _EXACT_DIGITS + 1
    mantissa = np.zeros(len(starts), np.int64)
    digits_seen = np.zeros(len(starts), np.int8)
    after_point = np.zeros(len(starts), np.int8)
    pointed = np.zeros(len(starts), np.bool_)
    for place in range(min(int(lengths.max()), _EXACT_DIGITS + 1)):
        inside = place < lengths
        byte = text[np.minimum(digits_from + place, len(text) - 1)]
        digit = byte - np.uint8(ord("0"))
        is_digit = inside & (digit <= 9)
        is_point = inside & (byte == ord(".")) & ~pointed
        plain &= is_digit | is_point | ~inside
        mantissa = np.where(is_digit, mantissa * 10 + digit, mantissa)
        digits_seen += is_digit
        after_point += is_digit & pointed
        pointed |= is_point
    plain &= (digits_seen > 0) & (digits_seen <= _EXACT_DIGITS)
    numbers = mantissa / _POWERS[np.minimum(after_point, _EXACT_DIGITS)]
    numbers[minus] *= -1.0
    _read_one_by_one(np.flatnonzero(~plain), text, starts, ends, numbers)
    if not fits_float32(numbers):
        raise Irregular
    return numbers


def _read_one_by_one(
    which: NDArray[np.intp], text: Bytes, starts: Places, ends: Places, numbers: NDArray[np.float64]
) -> None:
    for n in which:
        try:
            numbers[n] = finite_number(text[starts[n] : ends[n]].tobytes(), "a value")
        except Malformed as error:
            raise Irregular from error
