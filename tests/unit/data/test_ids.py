"""Ids: what is one, which row it has, and its way through a file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from mlless.data import ids as module
from mlless.data.ids import IdIndex, Ids, as_text, compact, ids_of, ids_of_text, join, pack, unpack
from mlless.errors import DatasetError, UsageError

numbers = st.one_of(st.integers(0, 30), st.integers(0, 2**63 - 1))
texts = st.one_of(
    numbers.map(str),
    numbers.map(lambda number: f"{number}.0"),
    st.sampled_from(
        ["007", "-1", "1.5", "2.", "\u0663", "9" * 19, str(2**63), "a", "a,b", 'say "x"', "é", "\x00"]
    ),
    st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
)
columns = st.lists(
    st.one_of(st.lists(texts, max_size=20), st.lists(numbers.map(str), max_size=20)), max_size=6
)


def plain(ids: Ids) -> list[str]:
    return [str(one) for one in ids.tolist()]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("12.0", "12"),
        ("12.000", "12"),
        (" 12\t", "12"),
        (f"{2**63 - 1}.0", str(2**63 - 1)),
        ("007", "007"),
        ("12.5", "12.5"),
        ("12.", "12."),
        (str(2**63), str(2**63)),
        (f"{2**63}.0", f"{2**63}.0"),
        ("-1", "-1"),
        ("1e3", "1e3"),
        ("\u0661", "\u0661"),  # a digit, but not of those that numbers are written with
        (" a b ", "a b"),
    ],
)
def test_what_an_id_is_depends_on_itself_alone(text: str, same: str) -> None:
    assert plain(ids_of_text([text])) == plain(ids_of([text])) == [same]
    assert plain(ids_of_text([text, "x"])) == [same, "x"]


def test_ids_are_numbers_only_if_all_of_them_are() -> None:
    assert ids_of_text(["3", "1.0"]).dtype == np.int64
    mixed = ids_of_text(["3", "x"])
    assert (mixed.dtype, mixed.tolist()) == (np.object_, ["3", "x"])
    assert compact(mixed[:1]).dtype == np.int64
    assert compact(np.array(["007"], np.object_)).tolist() == ["007"]


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ([7, 3], [7, 3]),
        (np.array([7.0, 3.0], np.float32), [7, 3]),
        (np.array([7, 3], np.uint8), [7, 3]),
        (np.array([2**63 - 1], np.uint64), [2**63 - 1]),
        (np.array([2**63, 3], np.uint64), [str(2**63), "3"]),
        ([2**70, 3], [str(2**70), "3"]),
        (np.array(["7", 3, 3.0, np.int8(4)], object), [7, 3, 3, 4]),
        (np.array(["u7", 3, 3.0, np.float32(4)], object), ["u7", "3", "3", "4"]),
        (["a", "b"], ["a", "b"]),
        ([], []),
        (np.array([], object), []),
    ],
)
def test_ids_come_as_values_of_many_types(values: object, ids: list[object]) -> None:
    assert ids_of(values).tolist() == ids


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("nan"),
        float("inf"),
        1.5,
        -1,
        -1.0,
        "",
        "  ",
        b"7",
        2.0**53,
        ("a", "b"),
        {},
        np.datetime64(1, "s"),
    ],
)
def test_what_is_no_id_is_an_error(value: object) -> None:
    column = np.empty(2, object)
    column[:] = [3, value]
    with pytest.raises(UsageError, match=r"users.*no id"):
        ids_of(column, "users")


@pytest.mark.parametrize("values", [[-1, 2], [1.5], [2.0**53], [1e300], [float("nan")]])
def test_numbers_that_are_no_ids_are_an_error(values: list[float]) -> None:
    with pytest.raises(UsageError, match=r"items.*no id"):
        ids_of(values, "items")


@given(columns, st.booleans(), st.sampled_from([1 << 20, 16]))
def test_ids_come_back_from_codes_rows_and_a_file(column: list[list[str]], sort: bool, small: int) -> None:
    chunks = [ids_of_text(texts) for texts in column]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL", small)  # so that numbers leave the array for the dictionary, too
        index = IdIndex()
        rows = np.concatenate([np.zeros(0, np.int64), *(index.add(chunk) for chunk in chunks)])
        met = list(dict.fromkeys(one for chunk in chunks for one in plain(chunk)))
        assert plain(index.ids) == met
        if sort:
            rows = index.sort()[rows]
            numeric = index.ids.dtype == np.int64
            assert plain(index.ids) == sorted(met, key=int if numeric else None)
        packed = safetensors.numpy.load(safetensors.numpy.save(pack("x", index.ids)))
        ids = unpack(packed, "x", len(index))
        assert (ids.dtype == np.int64) == all(chunk.dtype == np.int64 for chunk in chunks)
        assert plain(ids[rows]) == plain(join(chunks))
        assert all(
            (IdIndex(ids).find(form(chunk)) >= 0).all() for chunk in chunks for form in (compact, as_text)
        )


@given(st.lists(texts), st.lists(texts), st.lists(texts))
def test_an_id_is_found_where_it_is(known: list[str], more: list[str], wanted: list[str]) -> None:
    first = IdIndex()
    first.add(ids_of_text(known))
    index = IdIndex(first.ids)
    index.add(ids_of_text(more))
    index.sort(len(first))
    rows, ids = index.find(ids_of_text(wanted)), plain(index.ids)
    assert ids[: len(first)] == plain(first.ids)
    assert rows.tolist() == [ids.index(one) if one in ids else -1 for one in plain(ids_of_text(wanted))]


def test_an_id_stands_for_one_row() -> None:
    for twice in (np.array([3, 1, 3]), np.array(["a", "b", "a"], object)):
        with pytest.raises(DatasetError, match="two rows"):
            IdIndex(twice)


def test_large_numbers_do_not_make_a_large_array() -> None:
    index = IdIndex(np.array([0, 2**63 - 1]))
    assert index.find(np.array([2**63 - 1, 5, 0])).tolist() == [1, -1, 0]
    assert index.add(np.array([2**62, 0])).tolist() == [2, 0]


GOOD = pack("x", ids_of_text(["a", "é", "007"]))


@pytest.mark.parametrize(
    "harm",
    [
        lambda good: {},
        lambda good: {"x": np.array([1.0, 2.0, 3.0])},
        lambda good: {"x": np.array([[1, 2, 3]])},
        lambda good: {"x": np.array([1, 2, -3])},
        lambda good: {"x": np.array([1, 2])},
        lambda good: {"x.text": good["x.text"]},
        lambda good: {**good, "x.ends": good["x.ends"][:2]},
        lambda good: {**good, "x.ends": good["x.ends"] + 1},
        lambda good: {**good, "x.ends": np.array([2**62, 3, 6])},
        lambda good: {**good, "x.ends": np.array([0, 3, 6])},
        lambda good: {**good, "x.ends": np.array([1, 2, 6])},
        lambda good: {**good, "x.ends": np.array([-(2**63), 3, 6])},
        lambda good: {**good, "x.text": good["x.text"].astype(np.int16)},
        lambda good: {**good, "x.text": np.full(6, 255, np.uint8)},
    ],
)
def test_arrays_of_something_else_are_an_error(
    harm: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
) -> None:
    assert unpack(GOOD, "x", 3).tolist() == ["a", "é", "007"]
    with pytest.raises(ValueError, match="x"):
        unpack(harm(dict(GOOD)), "x", 3)
