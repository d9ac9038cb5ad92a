"""The assembly of mini-batches: the compiled kernels and their twin give the same bytes, refuse the same."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.unit.kernels.conftest import Problems, clicks_room, ratings_room
from tests.unit.kernels.test_kernel_inputs import (
    ENTRIES,
    Guarded,
    leaves,
    mangled,
    put,
    take,
)

from mlless.kernels import twin

TABLES = (1, 3, 63, 64, 65, 4095, 4096, 4097, 70_000, 1 << 20)
sizes = st.lists(st.integers(0, 40), max_size=6)


def segments(problems: Problems, counts: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a segment within each of consecutive runs of so many rows."""
    lengths = np.array([problems.random.integers(0, count + 1) for count in counts], np.int64)
    skipped = np.array([problems.random.integers(0, n) for n in np.array(counts) - lengths + 1], np.int64)
    begins = np.cumsum([0, *counts])[:-1] + skipped
    return begins, begins + lengths


def raw(room: tuple[Any, ...]) -> list[bytes]:
    return [array.tobytes() for array in room if isinstance(array, np.ndarray)]


@given(
    seed=st.integers(0, 2**32 - 1),
    counts=sizes,
    users=st.sampled_from(TABLES),
    items=st.sampled_from(TABLES),
    width=st.sampled_from([2, 4]),
)
@settings(max_examples=200)
def test_ratings_are_the_same_bytes_and_nothing_else_is_written(
    native: ModuleType, seed: int, counts: list[int], users: int, items: int, width: int
) -> None:
    problems = Problems(seed)
    columns = problems.rated(users, items, sum(counts))
    begins, ends = segments(problems, counts)
    rooms = [ratings_room(sum(counts) + 3, users, items, width) for _ in range(2)]
    numbers = [
        kernels.assemble_ratings(*columns, begins, ends, users, items, room)
        for kernels, room in zip((native, twin), rooms, strict=True)
    ]
    assert numbers[0] == numbers[1]
    assert raw(rooms[0]) == raw(rooms[1])


@given(
    seed=st.integers(0, 2**32 - 1),
    counts=sizes,
    features=st.sampled_from(TABLES),
    width=st.sampled_from([2, 4]),
    valued=st.booleans(),
    weighted=st.booleans(),
)
@settings(max_examples=200)
def test_clicks_are_the_same_bytes_and_nothing_else_is_written(
    native: ModuleType, seed: int, counts: list[int], features: int, width: int, valued: bool, weighted: bool
) -> None:
    problems = Problems(seed)
    columns = problems.clicked(
        features,
        sum(counts),
        valued=valued and bool(problems.random.integers(2)),
        weighted=weighted and bool(problems.random.integers(2)),
    )
    begins, ends = segments(problems, counts)
    rooms = [
        clicks_room(sum(counts) + 3, 6 * sum(counts), features, width, valued=valued, weighted=weighted)
        for _ in range(2)
    ]
    numbers = [
        kernels.assemble_clicks(*columns, begins, ends, features, room)
        for kernels, room in zip((native, twin), rooms, strict=True)
    ]
    assert numbers[0] == numbers[1]
    assert raw(rooms[0]) == raw(rooms[1])


def test_ratings_are_grouped_by_user_in_the_order_of_segments_and_rows(kernel: ModuleType) -> None:
    columns = (
        np.array([9, 7, 9, 7, 3, 7], np.uint32),
        np.array([4, 6, 2, 4, 9, 9], np.uint32),
        np.array([0, 1, 2, 3, 10, 11], np.float32),
    )
    room = ratings_room(5, 5, 5, 2)
    numbers = kernel.assemble_ratings(*columns, np.array([1, 4]), np.array([4, 6]), 10, 10, room)
    assert numbers == (3, 4)
    assert room.users[:3].tolist() == [3, 7, 9]
    assert room.starts[:4].tolist() == [0, 1, 4, 5]
    assert room.items[:4].tolist() == [2, 4, 6, 9]
    assert room.local.tolist() == [3, 2, 1, 3, 0]
    assert room.ratings.tolist() == [10, 1, 3, 11, 2]


def test_clicks_keep_their_order_and_what_is_missing_is_one(kernel: ModuleType) -> None:
    labels, starts = np.array([1, 0, 1], np.uint8), np.array([0, 2, 2, 4], np.uint32)
    indices, values = np.array([8, 3, 3, 200], np.uint32), np.array([2, 3, 4, 5], np.float32)
    weights, places = np.array([0.5, 2, 3], np.float32), (np.array([1, 0]), np.array([3, 2]))
    for some in ((None, weights), (values, None)):
        room = clicks_room(4, 4, 3, 2, valued=True, weighted=True)
        assert kernel.assemble_clicks(labels, starts, indices, *some, *places, 201, room) == 3
        assert room.labels.tolist() == [0, 1, 1, 0]
        assert room.starts.tolist() == [0, 0, 2, 4, 4]
        assert room.features.tolist() == [3, 8, 200]
        assert room.local.tolist() == [0, 2, 1, 0]
        assert room.values is not None
        assert room.weights is not None
        assert room.values.tolist() == ([1, 1, 1, 1] if some[0] is None else [4, 5, 2, 3])
        assert room.weights.tolist() == ([1, 1, 1, 1] if some[1] is None else [2, 3, 0.5, 2])


@pytest.mark.parametrize("distinct", [65_536, 65_537])
def test_local_ids_of_two_bytes_hold_65536_rows_and_no_more(kernel: ModuleType, distinct: int) -> None:
    ids = np.arange(distinct, dtype=np.uint32)[::-1].copy()
    source = np.zeros(distinct, np.uint32), ids, np.ones(distinct, np.float32)
    room = ratings_room(distinct, 1, distinct, 2)
    call = *source, np.array([0]), np.array([distinct]), 1, distinct, room
    if distinct > 65_536:
        with pytest.raises(ValueError, match="the output is too small"):
            kernel.assemble_ratings(*call)
    else:
        assert kernel.assemble_ratings(*call) == (1, distinct)
        np.testing.assert_array_equal(room.local, ids)


def u4(*values: int) -> NDArray[np.uint32]:
    return np.array(values, np.uint32)


def segments_at(place: int) -> dict[str, tuple[tuple[int, ...], object, str]]:
    """Return what may be wrong with segments, and tables, which begin at this argument."""
    return {
        "begins before": ((place,), np.array([-1, 6, 13]), "segment"),
        "begins behind its end": ((place,), np.array([11, 6, 13]), "segment"),
        "ends behind": ((place + 1,), np.array([5, 12, 27]), "segment"),
        "a segment too few": ((place,), np.array([2, 6]), "segment"),
        "a table too large": ((place + 2,), 2**32 + 1, "segment"),
        "a table of less than nothing": ((place + 2,), -1, "segment"),
    }


RATINGS = {
    **segments_at(3),
    "no users": ((5,), 0, "beyond"),
    "an item beyond": ((6,), 4, "beyond"),
    "a column too short": ((1,), u4(1, 2), "one length"),
    "few users": ((7, 0), u4(1), "too small"),
    "few starts": ((7, 1), u4(1, 2), "too small"),
    "few items": ((7, 2), u4(1), "too small"),
    "few local ids": ((7, 3), np.zeros(12, np.uint16), "too small"),
    "local ids of three bytes": ((7, 4), 3, "too small"),
    "few ratings": ((7, 5), np.zeros(12, np.float32), "too small"),
}
CLICKS = {
    **segments_at(5),
    "no features": ((7,), 0, "beyond"),
    "starts too few": ((1,), u4(0, 1), "one length"),
    "starts go back": ((1,), u4(0, 0, 4, 2, *[4] * 17), "ascend"),
    "starts beyond": ((1,), u4(0, 0, 4, *[2**32 - 1] * 18), "ascend"),
    "no place for values": ((8, 5), None, "no place"),
    "no place for weights": ((8, 6), None, "no place"),
    "few labels": ((8, 0), np.zeros(7, np.uint8), "too small"),
    "few starts": ((8, 1), u4(*range(8)), "too small"),
    "few features": ((8, 2), u4(1), "too small"),
    "few local ids": ((8, 3), u4(1), "too small"),
    "few values": ((8, 5), np.zeros(2, np.float32), "too small"),
    "few weights": ((8, 6), np.zeros(7, np.float32), "too small"),
}


@pytest.mark.parametrize("damage", RATINGS)
def test_damaged_ratings_are_refused(kernel: ModuleType, damage: str) -> None:
    place, value, says = RATINGS[damage]
    refused_and_forgotten(kernel, "assemble_ratings", place, value, says)


@pytest.mark.parametrize("damage", CLICKS)
def test_damaged_clicks_are_refused(kernel: ModuleType, damage: str) -> None:
    place, value, says = CLICKS[damage]
    refused_and_forgotten(kernel, "assemble_clicks", place, value, says)


def refused_and_forgotten(
    kernel: ModuleType, name: str, place: tuple[int, ...], value: object, says: str
) -> None:
    """The call that follows a refused one finds nothing of it."""
    with pytest.raises(ValueError, match=says):
        getattr(kernel, name)(*put(ENTRIES[name](Problems(1)), place, value))
    ours, expected = ENTRIES[name](Problems(2)), ENTRIES[name](Problems(2))
    assert getattr(kernel, name)(*ours) == getattr(twin, name)(*expected)
    assert raw(ours[-1]) == raw(expected[-1])


@pytest.mark.parametrize("name", ["assemble_ratings", "assemble_clicks"])
def test_what_is_accepted_of_mangled_arguments_is_what_the_twin_computes(
    native: ModuleType, name: str
) -> None:
    good = ENTRIES[name](Problems(5))
    random = np.random.default_rng(len(name))
    # Not the width: to the compiled kernels an array is bytes, to the twin it has a width of its own.
    places, accepted = [place for place in leaves(good) if place != (len(good) - 1, 4)], 0
    for _ in range(1500):
        place = places[random.integers(0, len(places))]
        value = mangled(random, take(good, place))
        if isinstance(value, np.ndarray):
            kind = take(good, place).dtype
            value = value[: len(value) // kind.itemsize * kind.itemsize].copy().view(kind)
        arguments = put(good, place, value)
        guarded, copies = Guarded(), [arguments, arguments]
        for leaf in leaves(arguments):
            inner = take(arguments, leaf)
            if isinstance(inner, np.ndarray):
                copies = [put(copy, leaf, guarded.copy(inner)) for copy in copies]
        results: list[object] = []
        for kernels, copy in zip((native, twin), copies, strict=True):
            try:
                results.append(getattr(kernels, name)(*copy))
            except (ValueError, TypeError, AttributeError) as error:
                results.append(isinstance(error, (TypeError, AttributeError)) or str(error))
        guarded.check()
        if isinstance(results[1], (int, tuple)) and results[1] is not True:
            accepted += 1
            assert results[0] == results[1]
            assert raw(copies[0][-1]) == raw(copies[1][-1])
        else:
            assert results[0] is True or isinstance(results[0], str)
    assert 300 < accepted < 1500
