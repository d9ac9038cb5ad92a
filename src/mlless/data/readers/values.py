"""Values of Arrow columns as arrays: the same whether they were text, or of a type of their own in Parquet.

Each function returns the values and which of them are usable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow
import pyarrow.compute as compute
from numpy.typing import NDArray
from pyarrow import types

from mlless.data.features import ABSENT
from mlless.data.hashing import LONGEST_TOKEN, hash_tokens
from mlless.data.ids import Ids, ids_of_text
from mlless.data.readers.table import decoded

Usable = NDArray[np.bool_]

NO_LABEL, BAD_LABEL = 2, 3
_EXACT = 2.0**53  # below this every whole number is a float64
_POWERS = 10 ** np.arange(19, dtype=np.int64)
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WHOLE = r"^(0|[1-9][0-9]{0,18})(\.0+)?$"
_BYTES = r"\x{F780}-\x{F7FF}"  # bytes that are no UTF-8
_UNFIT = rf"[\x00-\x1f\x7f{_BYTES}]"  # control characters as well
_KNOWN = {"true": 1, "false": 0}


def is_text(kind: pyarrow.DataType) -> bool:
    """Return whether a column of this type holds text, also as bytes or a dictionary."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        (
            types.is_string(kind),
            types.is_large_string(kind),
            types.is_string_view(kind),
            types.is_binary(kind),
            types.is_large_binary(kind),
        )
    )


def ids(column: pyarrow.Array) -> tuple[Ids, Usable]:
    """Return ids: numbers, or text that is kept as it is; an empty one, or a fraction, is not usable."""
    kind = column.type
    there = ~_nulls(column)
    if types.is_floating(kind):
        numbers = _float64(column)
        usable = there & (numbers == np.floor(numbers)) & (np.abs(numbers) < _EXACT)
        column = pyarrow.array(np.where(usable, numbers, 0)).cast(pyarrow.int64())
        there = usable
    if types.is_integer(column.type):
        numbers = column.fill_null(0).to_numpy(zero_copy_only=False)
        if not there.all() or (numbers.dtype != np.uint64 and numbers.min(initial=0) < 0):
            there = there & (numbers >= 0)
        if numbers.dtype != np.uint64 or numbers.max(initial=0) < 1 << 63:
            return numbers.astype(np.int64), there
    texts = _texts(column)
    if there.all() and (plain := _plain_numbers(texts)) is not None:
        return plain, there
    coded = texts.fill_null("").dictionary_encode()
    trimmed = compute.utf8_trim_whitespace(coded.dictionary)
    unfit = compute.or_(compute.match_substring_regex(trimmed, _UNFIT), compute.equal(trimmed, ""))
    numeric = compute.any(compute.match_substring_regex(trimmed, _WHOLE)).as_py()
    distinct = ids_of_text(trimmed.to_pylist()) if numeric else np.array(trimmed.to_pylist(), np.object_)
    places = coded.indices.to_numpy(zero_copy_only=False)
    usable = there & ~unfit.to_numpy(zero_copy_only=False)[places]
    found = distinct[places]
    if numeric and not usable.all():  # what is not usable must not make text of the others
        found = found.astype(np.object_)
        found[~usable] = "0"
        found = ids_of_text(map(str, found))
    return found, usable


def in_utf8(column: pyarrow.Array) -> Usable:
    """Return which values are numbers, or text in UTF-8; a missing one counts as such."""
    return ~_flags(compute.match_substring_regex(_texts(column), f"[{_BYTES}]"))


def _plain_numbers(texts: pyarrow.Array) -> NDArray[np.int64] | None:
    """Return the numbers that all texts write in the plain way, the fast path; None if one does not."""
    if len(texts) and not texts[0].as_py().isdigit():  # one look is cheaper than many failures
        return None
    try:
        numbers: NDArray[np.int64] = texts.cast(pyarrow.int64()).to_numpy(zero_copy_only=False)
    except pyarrow.ArrowInvalid:
        return None
    # Arrow reads 007, -1 and 0x1F, too; only what is written in the plain way has as many digits as bytes.
    digits = np.minimum(np.diff(_bounds(texts)), 19)
    least = _POWERS[np.maximum(digits - 1, 0)]
    least[digits == 1] = 0
    return numbers if (numbers >= least).all() else None


def numbers(
    column: pyarrow.Array, missing: Sequence[str], decimal: str, *, exact: bool = False
) -> tuple[NDArray[np.float32], Usable]:
    """Return a column's numbers, NaN where one is missing.

    A number that is not finite in float32 cannot be used. With ``exact`` the same holds for an integer that
    float64 would round.
    """
    if types.is_null(column.type):
        return np.full(len(column), np.nan, np.float32), np.ones(len(column), np.bool_)
    if is_text(column.type):
        found, usable = _parsed(_texts(column), missing, decimal)
    else:
        found = _float64(column)
        usable = np.ones(len(found), np.bool_)
        if exact and types.is_integer(column.type):
            usable = ~(np.abs(found) >= _EXACT)
    with np.errstate(over="ignore"):
        narrow = found.astype(np.float32)
    return narrow, usable & ~np.isinf(narrow)


def _parsed(texts: pyarrow.Array, missing: Sequence[str], decimal: str) -> tuple[NDArray[np.float64], Usable]:
    if decimal != ".":
        texts = compute.replace_substring(texts, decimal, ".")
    empty = np.diff(_bounds(texts)) == 0
    if "" in missing or not empty.any():
        try:
            plain = compute.if_else(empty, None, texts) if empty.any() else texts
            found = plain.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
            if (np.isfinite(found) | empty).all():
                return found, np.ones(len(found), np.bool_)
        except pyarrow.ArrowInvalid:
            pass
    texts = compute.utf8_trim_whitespace(texts)
    absent = _absent(texts, missing) | _nulls(texts)
    right = _flags(compute.match_substring_regex(texts, _NUMBER)) & ~absent
    texts = compute.replace_substring_regex(texts, r"^\+", "")
    found = compute.if_else(right, texts, None).cast(pyarrow.float64())
    return found.to_numpy(zero_copy_only=False), absent | right


def _absent(texts: pyarrow.Array, missing: Sequence[str]) -> NDArray[np.bool_]:
    """Return which texts stand for a missing value; only those of the right length are looked at."""
    lengths = np.diff(_bounds(texts))
    absent: NDArray[np.bool_] = (lengths == 0) & ("" in missing)
    likely = np.flatnonzero(np.isin(lengths, [len(text.encode()) for text in missing if text]))
    if len(likely):
        absent[likely] = _flags(
            compute.is_in(texts.take(likely), value_set=pyarrow.array(missing, texts.type))
        )
    return absent


def labels(column: pyarrow.Array, pair: tuple[str, str] | None, missing: Sequence[str]) -> NDArray[np.uint8]:
    """Return the label of each value: 0, 1, `NO_LABEL` for a missing one or `BAD_LABEL`."""
    coded = _texts(column).fill_null("").dictionary_encode()
    distinct = np.array(
        [_label(text.strip(), pair, missing) for text in coded.dictionary.to_pylist()], np.uint8
    )
    found: NDArray[np.uint8] = distinct[coded.indices.to_numpy(zero_copy_only=False)]
    return found


def label_texts(column: pyarrow.Array, missing: Sequence[str]) -> set[str]:
    """Return the texts of the labels that there are."""
    return {text.strip() for text in _texts(column.drop_null()).unique().to_pylist()} - set(missing)


def _label(text: str, pair: tuple[str, str] | None, missing: Sequence[str]) -> int:
    if pair is not None:
        for label, told in enumerate(pair):
            if text == told or (_number(text) is not None and _number(text) == _number(told)):
                return label
    if text in missing:
        return NO_LABEL
    if pair is not None:
        return BAD_LABEL
    number = _number(text)
    return int(number == 1) if number in (0, 1, -1) else _KNOWN.get(text.lower(), BAD_LABEL)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def categories(
    column: pyarrow.Array, missing: Sequence[str], state: np.uint64, hashed: int
) -> tuple[NDArray[np.uint32], Usable]:
    """Return the hash of each value modulo ``hashed``, `ABSENT` for a missing one."""
    texts = _texts(column).fill_null("")
    # Text of CSV and pandas says True; so does a column of booleans.
    if types.is_boolean(column.type):
        texts = compute.utf8_capitalize(texts)
    absent = _absent(texts, missing)
    data = texts.buffers()[2]
    bytes_ = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    bounds = _bounds(texts)
    starts, ends = bounds[:-1], bounds[1:]
    short = ends - starts <= LONGEST_TOKEN
    ends = np.where(absent, starts, np.minimum(ends, starts + LONGEST_TOKEN))
    hashes = hash_tokens(bytes_, starts, ends, np.full(len(starts), state)) % np.uint64(hashed)
    return np.where(ends > starts, hashes, ABSENT).astype(np.uint32), short


def _texts(column: pyarrow.Array) -> pyarrow.Array:
    """Return the values as text."""
    if types.is_dictionary(column.type):
        return _texts(column.dictionary).take(column.indices)
    if types.is_string(column.type) or types.is_large_string(column.type):
        return column
    try:
        return column.cast(pyarrow.large_string())
    except pyarrow.ArrowInvalid:  # bytes that are not UTF-8
        values = [None if value is None else decoded(value) for value in column.to_pylist()]
        return pyarrow.array(values, pyarrow.large_string())


def _bounds(texts: pyarrow.Array) -> NDArray[np.int64]:
    """Return where each text starts among the bytes of all, and where the last ends."""
    width = np.int64 if types.is_large_string(texts.type) else np.int32
    offsets = np.frombuffer(texts.buffers()[1], width)
    return offsets[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)


def _float64(column: pyarrow.Array) -> NDArray[np.float64]:
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_boolean(column.type):
        column = column.cast(pyarrow.uint8())
    found: NDArray[np.float64] = column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found


def _nulls(column: pyarrow.Array) -> Usable:
    return _flags(column.is_null())


def _flags(column: pyarrow.Array) -> Usable:
    flags: Usable = column.fill_null(False).to_numpy(zero_copy_only=False)
    return flags
