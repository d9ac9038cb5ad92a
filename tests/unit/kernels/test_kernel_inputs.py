"""Whatever the compiled kernels are given, they compute or raise; they never read or write astray.

Every writable buffer of the random cases lies between guards that must stay as they were.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.unit.kernels.conftest import Problems, clicks_room, outbox, packed, ratings_room

from mlless.kernels import twin
from mlless.kernels.arrays import Outbox, RatingsArrays, Rows, Rule, TableUpdate, Total

REFUSED = (ValueError, TypeError, OverflowError, BufferError)
RULE = Rule(0, 0.1, 1e-3, 0.0, 0.01, 5)
GUARD = 256

Arguments = list[Any]


def factorization(problems: Problems, columns: int = 11) -> Arguments:
    users, items = problems.table(9, columns), problems.table(8, columns)
    batch = problems.ratings(9, 8, touched=(5, 6), count=20, width=2)
    boxes = outbox(5, columns), outbox(6, columns)
    return [users, items, columns, batch, 3.0, 1.0, 0.1, 1.0, RULE, RULE, 0.1, 1, 1, *boxes]


def factorization_error(problems: Problems) -> Arguments:
    return [*factorization(problems)[:4], 3.0, 1.0, 1.0, 5.0]


def logistic(problems: Problems) -> Arguments:
    features, intercept = problems.table(9, 1), problems.table(1, 1)
    batch = problems.clicks(9, touched=6, rows=4, entries=20, width=2, valued=True)
    return [features, intercept, batch, RULE, 0.1, 1, outbox(6, 1), outbox(1, 1)]


def margins(problems: Problems) -> Arguments:
    return [*logistic(problems)[:3], np.zeros(4, np.float32)]


def merge(problems: Problems) -> Arguments:
    parts = [[problems.update(9, 11, 5, 0.5), problems.update(40, 1, 20, 0.5)] for _ in range(3)]
    tables = [(problems.table(9, 11), 11, 0), (problems.table(40, 1), 1, 1)]
    return [tables, [packed(update) for update in parts], np.ones(4, np.float32), 1]


def flushing(problems: Problems) -> Arguments:
    return [problems.table(9, 11), 11, np.array([1, 4], np.uint32), 0.5, 1, outbox(9, 11)]


def summing(problems: Problems) -> Arguments:
    kept = [((np.zeros((9, 11), np.float32), 11), 11, 0), ((np.zeros((40, 1), np.float32), 1), 1, 1)]
    update = packed([problems.update(9, 11, 5, 0.5), problems.update(40, 1, 20, 0.5)])
    return [kept, [update], np.ones(2, np.float32), 1, [np.zeros(9, np.uint32), np.zeros(40, np.uint32)]]


def publishing(problems: Problems) -> Arguments:
    kept = np.ones((9, 11), np.float32)
    return [problems.table(9, 11), kept, 11, np.array([1, 4], np.uint32), 0.5, 1, outbox(2, 11)]


def cutting(problems: Problems) -> Arguments:
    part = problems.update(9, 11, 5, 0.5)
    room = TableUpdate(np.empty_like(part.rows), np.empty_like(part.masks), np.empty_like(part.values))
    return [part, 0, 3, 2, room]


def adding(problems: Problems) -> Arguments:
    totals = [Total.zeros(9, 11, counted=True), Total.zeros(40, 1, counted=False)]
    return [totals, packed([problems.update(9, 11, 5, 0.5), problems.update(40, 1, 20, 0.5)])]


def packing(problems: Problems) -> Arguments:
    parts = [problems.update(9, 11, 5, 0.5), problems.update(40, 1, 20, 0.5)]
    return [parts, 0, 1, np.zeros(1000, np.uint8)]


def assembly_of_ratings(problems: Problems) -> Arguments:
    begins, ends = np.array([2, 12, 21]), np.array([10, 12, 26])
    return [*problems.rated(9, 8, 26), begins, ends, 9, 8, ratings_room(13, 9, 8, 2)]


def assembly_of_clicks(problems: Problems) -> Arguments:
    begins, ends = np.array([1, 6, 13]), np.array([5, 6, 17])
    columns = problems.clicked(9, 20, valued=True, weighted=True)
    return [*columns, begins, ends, 9, clicks_room(8, 60, 9, 4, valued=True, weighted=True)]


ENTRIES: dict[str, Callable[[Problems], Arguments]] = {
    "factorization_step": factorization,
    "factorization_error": factorization_error,
    "logistic_step": logistic,
    "logistic_margins": margins,
    "merge_updates": merge,
    "flush_table": flushing,
    "add_update": adding,
    "sum_updates": summing,
    "publish_sums": publishing,
    "cut_update": cutting,
    "pack_update": packing,
    "assemble_ratings": assembly_of_ratings,
    "assemble_clicks": assembly_of_clicks,
}


def put(arguments: Arguments, place: tuple[int, ...], value: object) -> Arguments:
    """Return the arguments with another value at a place, which leads into tuples."""
    first, *rest = place
    inner = arguments[first]
    if rest:
        parts = put(list(inner), tuple(rest), value)
        value = type(inner)(*parts) if hasattr(inner, "_fields") else type(inner)(parts)
    return [*arguments[:first], value, *arguments[first + 1 :]]


def take(arguments: Arguments, place: tuple[int, ...]) -> Any:
    """Return the value at a place."""
    value: Any = arguments
    for step in place:
        value = value[step]
    return value


def leaves(value: object, place: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Return the places of everything that is neither tuple nor list."""
    if isinstance(value, (tuple, list)):
        return [leaf for n, part in enumerate(value) for leaf in leaves(part, (*place, n))]
    return [place]


@pytest.mark.parametrize("name", ENTRIES)
def test_good_arguments_are_accepted(native: ModuleType, name: str) -> None:
    getattr(native, name)(*ENTRIES[name](Problems(1)))


def u4(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array(values, np.uint32)


RATINGS = {
    "users beyond the table": ((3, 0), u4(0, 1, 2, 3, 9)),
    "users twice": ((3, 0), u4(0, 1, 1, 3, 4)),
    "users descend": ((3, 0), u4(4, 3, 2, 1, 0)),
    "a user too many": ((3, 0), u4(0, 1, 2, 3, 4, 5)),
    "starts begin late": ((3, 1), u4(1, 4, 8, 12, 16, 20)),
    "starts end early": ((3, 1), u4(0, 4, 8, 12, 16, 19)),
    "starts end late": ((3, 1), u4(0, 4, 8, 12, 16, 21)),
    "starts go back": ((3, 1), u4(0, 12, 8, 12, 16, 20)),
    "starts leap": ((3, 1), u4(0, 2**32 - 1, 8, 12, 16, 20)),
    "no starts": ((3, 1), u4()),
    "items beyond the table": ((3, 2), u4(0, 1, 2, 3, 4, 8)),
    "items huge": ((3, 2), u4(0, 1, 2, 3, 4, 2**32 - 1)),
    "items twice": ((3, 2), u4(0, 1, 2, 2, 4, 5)),
    "fewer items than named": ((3, 2), u4()),
    "local id beyond": ((3, 3), np.full(20, 6, np.uint16)),
    "local id huge": ((3, 3), np.full(20, 65535, np.uint16)),
    "a local id too few": ((3, 3), np.zeros(19, np.uint16)),
    "a rating too few": ((3, 5), np.ones(19, np.float32)),
    "a rating too many": ((3, 5), np.ones(21, np.float32)),
}
SHAPES = {
    "stride too small": ((0, 1), 33),
    "stride does not divide": ((0, 1), 50),
    "stride zero": ((0, 1), 0),
    "stride negative": ((0, 1), -48),
    "stride overflows": ((0, 1), 2**62),
    "stride huge": ((1, 1), 2**61),
    "columns zero": ((2,), 0),
    "columns one": ((2,), 1),
    "columns negative": ((2,), -11),
    "columns 257": ((2,), 257),
    "local ids of three bytes": ((3, 4), 3),
    "local ids of no bytes": ((3, 4), 0),
    "local ids of minus two bytes": ((3, 4), -2),
    "local ids wider than they are": ((3, 4), 4),
}
OUTBOX = {
    "no such rule": ((8, 0), 2),
    "no such rule of items": ((9, 0), 2),
    "no rows": ((13, 0), u4(0, 0, 0, 0)),
    "few masks": ((13, 1), np.zeros((4, 2), np.uint8)),
    "few values": ((14, 2), np.zeros(33, np.float32)),
    "no values": ((14, 2), np.zeros(0, np.float32)),
    "exponent high": ((13, 3), 120),
    "exponent low": ((14, 3), -120),
}


@pytest.mark.parametrize("damage", [*RATINGS, *SHAPES, *OUTBOX])
def test_a_damaged_factorization_step_is_refused(native: ModuleType, damage: str) -> None:
    arguments = factorization(Problems(2))
    before = arguments[0].data.tobytes(), arguments[1].data.tobytes()
    place, value = {**RATINGS, **SHAPES, **OUTBOX}[damage]
    with pytest.raises(ValueError):
        native.factorization_step(*put(arguments, place, value))
    assert (arguments[0].data.tobytes(), arguments[1].data.tobytes()) == before
    if damage in RATINGS or damage.startswith("no such rule"):
        with pytest.raises(ValueError):
            twin.factorization_step(*put(arguments, place, value))
    if place[0] < 4:
        with pytest.raises(ValueError):
            native.factorization_error(*put(factorization_error(Problems(2)), place, value))


CLICKS = {
    "no rows": ((2, 0), np.zeros(0, np.uint8)),
    "a label too many": ((2, 0), np.zeros(5, np.uint8)),
    "starts go back": ((2, 1), u4(0, 9, 8, 12, 20)),
    "starts end late": ((2, 1), u4(0, 4, 8, 12, 21)),
    "starts begin late": ((2, 1), u4(2, 4, 8, 12, 20)),
    "a start too few": ((2, 1), u4(0, 4, 8, 20)),
    "features beyond the table": ((2, 2), u4(0, 1, 2, 3, 4, 9)),
    "features twice": ((2, 2), u4(0, 1, 2, 2, 4, 5)),
    "no features": ((2, 2), u4()),
    "local id beyond": ((2, 3), np.full(20, 6, np.uint16)),
    "a local id too few": ((2, 3), np.zeros(19, np.uint16)),
    "a value too few": ((2, 5), np.zeros(19, np.float32)),
    "a value too many": ((2, 5), np.zeros(21, np.float32)),
    "a weight too few": ((2, 6), np.zeros(3, np.float32)),
    "a weight too many": ((2, 6), np.zeros(5, np.float32)),
}
CLICKS_SHAPES = {
    "stride too small": ((0, 1), 3),
    "stride does not divide": ((0, 1), 5),
    "stride overflows": ((0, 1), 2**62),
    "no intercept": ((1, 0), np.zeros((0, 4), np.float32)),
    "two intercepts": ((1, 0), np.zeros((2, 4), np.float32)),
    "local ids of minus two bytes": ((2, 4), -2),
    "local ids of one byte": ((2, 4), 1),
}
CLICKS_OUTBOX = {
    "no such rule": ((3, 0), -1),
    "few rows": ((6, 0), u4(0, 0)),
    "few masks": ((6, 1), np.zeros(5, np.uint8)),
    "few values": ((6, 2), np.zeros(3, np.float32)),
    "no room for the intercept": ((7, 0), u4()),
    "exponent high": ((7, 3), 1000),
}


@pytest.mark.parametrize("damage", [*CLICKS, *CLICKS_SHAPES, *CLICKS_OUTBOX])
def test_a_damaged_logistic_step_is_refused(native: ModuleType, damage: str) -> None:
    arguments = logistic(Problems(2))
    before = arguments[0].data.tobytes(), arguments[1].data.tobytes()
    place, value = {**CLICKS, **CLICKS_SHAPES, **CLICKS_OUTBOX}[damage]
    with pytest.raises(ValueError):
        native.logistic_step(*put(arguments, place, value))
    assert (arguments[0].data.tobytes(), arguments[1].data.tobytes()) == before
    if damage in CLICKS or damage == "no such rule":
        with pytest.raises(ValueError):
            twin.logistic_step(*put(arguments, place, value))
    if place[0] < 3:
        with pytest.raises(ValueError):
            native.logistic_margins(*put(margins(Problems(2)), place, value))


@pytest.mark.parametrize("room", [0, 3, 5])
def test_margins_need_room_for_each_row(native: ModuleType, room: int) -> None:
    with pytest.raises(ValueError):
        native.logistic_margins(*margins(Problems(2))[:3], np.zeros(room, np.float32))


@pytest.mark.parametrize("updates", [None, (), [None], [()], [1], [[]], ["a"], [b""], [b"no update"]])
def test_what_is_no_list_of_updates_is_refused(native: ModuleType, updates: object) -> None:
    with pytest.raises(REFUSED):
        native.merge_updates(*put(merge(Problems(0)), (1,), updates))


@pytest.mark.parametrize("stride", [0, -48, 33, 2**62, 2**60 + 3])
def test_merge_refuses_a_wrong_stride(native: ModuleType, stride: int) -> None:
    with pytest.raises(ValueError):
        native.merge_updates(*put(merge(Problems(0)), (0, 0, 0, 1), stride))


@pytest.mark.parametrize("name", ENTRIES)
def test_numbers_astride_their_alignment_are_refused(native: ModuleType, name: str) -> None:
    arguments = ENTRIES[name](Problems(3))
    for place in leaves(arguments):
        value = take(arguments, place)
        if not isinstance(value, np.ndarray) or value.dtype.itemsize == 1 or not value.size:
            continue
        astride = np.zeros(value.nbytes + 1, np.uint8)[1:].view(value.dtype).reshape(value.shape)
        astride[...] = value
        with pytest.raises(ValueError):
            getattr(native, name)(*put(arguments, place, astride))


@pytest.mark.parametrize("name", ENTRIES)
def test_read_only_memory_is_not_written(native: ModuleType, name: str) -> None:
    arguments = ENTRIES[name](Problems(3))
    frozen: Arguments = arguments
    for place in leaves(arguments):
        if isinstance(take(arguments, place), np.ndarray):
            copy = take(arguments, place).copy()
            copy.flags.writeable = False
            frozen = put(frozen, place, copy)
    if name == "factorization_error":  # it writes nothing
        native.factorization_error(*frozen)
    else:
        with pytest.raises(TypeError, match="read-write"):
            getattr(native, name)(*frozen)


class Guarded:
    """Copies of arrays between guards."""

    def __init__(self) -> None:
        self._memories: list[tuple[np.ndarray[Any, np.dtype[np.uint8]], int, int]] = []

    def copy(self, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        memory = np.full(value.nbytes + 2 * GUARD + 64, 0x5A, np.uint8)
        start = GUARD + -(memory.ctypes.data + GUARD) % 64
        end = start + value.nbytes
        self._memories.append((memory, start, end))
        inside: np.ndarray[Any, Any] = memory[start:end].view(value.dtype).reshape(value.shape)
        inside[...] = value
        return inside

    def check(self) -> None:
        for memory, start, end in self._memories:
            assert (memory[:start] == 0x5A).all(), "written before a buffer"
            assert (memory[end:] == 0x5A).all(), "written behind a buffer"


def mangled(random: np.random.Generator, value: object) -> object:
    """Return another value of the same kind: flipped, cut, grown or random."""
    if isinstance(value, np.ndarray):
        raw = np.frombuffer(value.tobytes(), np.uint8).copy()
        choice = random.integers(0, 6)
        if choice == 0 and len(raw):
            for _ in range(random.integers(1, 4)):
                raw[random.integers(0, len(raw))] ^= 1 << random.integers(0, 8)
        elif choice == 1:
            raw = raw[: random.integers(0, len(raw) + 1)]
        elif choice == 2:
            raw = np.concatenate([raw, random.integers(0, 256, random.integers(1, 40)).astype(np.uint8)])
        elif choice == 3:
            raw = random.integers(0, 256, len(raw)).astype(np.uint8)
        elif choice == 4 and raw.nbytes >= 4:
            words = raw[: len(raw) // 4 * 4].view(np.uint32)
            words[random.integers(0, len(words))] = random.choice([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
        else:
            raw = random.integers(0, 3, random.integers(0, 300)).astype(np.uint8)
        return raw
    if isinstance(value, int):
        return int(
            random.choice([-(2**31), -1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 33, 64, 255, 256, 257, 2**31 - 1])
        )
    if isinstance(value, float):
        return float(random.choice([0.0, -1.0, np.nan, np.inf, -np.inf, 1e300, 1e-300]))
    return None


@pytest.mark.parametrize("name", ENTRIES)
def test_mangled_arguments_compute_or_raise(native: ModuleType, name: str) -> None:
    """1,500 cases each: one to three arguments of a good call are replaced."""
    entry = getattr(native, name)
    random = np.random.default_rng(list(name.encode()))
    accepted = 0
    good = ENTRIES[name](Problems(5))
    for _ in range(1500):
        arguments = good
        places = leaves(good)
        for n in random.choice(len(places), min(len(places), int(random.integers(1, 4))), replace=False):
            arguments = put(arguments, places[n], mangled(random, take(good, places[n])))
        guarded = Guarded()
        for place in leaves(arguments):
            value = take(arguments, place)
            if isinstance(value, np.ndarray):
                arguments = put(arguments, place, guarded.copy(value))
        try:
            entry(*arguments)
        except REFUSED:
            pass
        else:
            accepted += 1
        guarded.check()
    assert 0 < accepted < 1500


@pytest.mark.parametrize("name", ENTRIES)
def test_random_arguments_compute_or_raise(native: ModuleType, name: str) -> None:
    """500 cases each: every argument is random, of the right kind."""
    entry = getattr(native, name)
    random = np.random.default_rng(list(name.encode()))
    good = ENTRIES[name](Problems(5))
    for _ in range(500):
        arguments, guarded = good, Guarded()
        for place in leaves(good):
            value = mangled(random, take(good, place))
            arguments = put(arguments, place, guarded.copy(value) if isinstance(value, np.ndarray) else value)
        with contextlib.suppress(*REFUSED):
            entry(*arguments)
        guarded.check()


@pytest.mark.parametrize("columns", [2, 8, 11, 40, 256])
@pytest.mark.parametrize("half", [0, 1])
def test_a_full_outbox_is_filled_to_its_last_entry_and_no_further(
    native: ModuleType, columns: int, half: int
) -> None:
    """Every entry of every row is published into an outbox of the smallest size that is allowed."""
    guarded = Guarded()
    tables = [
        Rows(guarded.copy(np.ones((3, 3 * columns + 1), np.float32)), 3 * columns + 1) for _ in range(2)
    ]
    batch = RatingsArrays(
        u4(0, 1, 2), u4(0, 1, 2, 3), u4(0, 1, 2), np.arange(3, dtype=np.uint16), 2, np.ones(3, np.float32)
    )
    floats = -(-(3 * columns + 1) // 2) if half else 3 * columns + 1
    boxes = [
        Outbox(
            guarded.copy(np.zeros(3, np.uint32)),
            guarded.copy(np.zeros((3, (columns + 7) // 8), np.uint8)),
            guarded.copy(np.zeros(floats, np.float32)),
            0,
        )
        for _ in range(2)
    ]
    _, *sent = native.factorization_step(
        *tables,
        columns,
        batch,
        0.0,
        1.0,
        0.0,
        0.0,
        *[Rule(0, 0.0, 1.0, 0.0, 0.0, 1)] * 2,
        0.0,
        half,
        half,
        *boxes,
    )
    assert [s[:2] for s in sent] == [(3, 3 * columns)] * 2
    guarded.check()


def test_an_empty_batch_moves_nothing(native: ModuleType) -> None:
    users, items = Problems(0).table(4, 11), Problems(1).table(4, 11)
    before = users.data.tobytes(), items.data.tobytes()
    batch = RatingsArrays(u4(), u4(0), u4(), np.zeros(0, np.uint16), 2, np.zeros(0, np.float32))
    loss, *sent = native.factorization_step(
        users, items, 11, batch, 0.0, 1.0, 0.0, 1.0, RULE, RULE, 0.0, 0, 0, outbox(0, 11), outbox(0, 11)
    )
    assert (loss, sent) == (0.0, [(0, 0, 0.0, 1)] * 2)
    assert (users.data.tobytes(), items.data.tobytes()) == before


def test_an_update_of_hostile_counts_is_refused(native: ModuleType) -> None:
    """Masks that mark more than there are values, or the other way round, in every combination."""
    table = Problems(0).table(4, 11)
    for rows in range(4):
        for mask_bytes in range(9):
            for values in range(7):
                update = TableUpdate(
                    np.arange(rows, dtype=np.uint32),
                    np.full(mask_bytes, 1, np.uint8),
                    np.ones(values, np.float32),
                )
                arguments = [(table, 11, 0)], [packed([update])], np.ones(1, np.float32), 0
                if mask_bytes == 2 * rows and values == 2 * rows:
                    native.merge_updates(*arguments)
                else:
                    with pytest.raises(ValueError):
                        native.merge_updates(*arguments)


@pytest.mark.parametrize("name", ENTRIES)
def test_buffers_are_let_go_whether_a_call_succeeds_or_not(native: ModuleType, name: str) -> None:
    entry, good = getattr(native, name), ENTRIES[name](Problems(5))
    random = np.random.default_rng(1)
    held = [array for array in (take(good, place) for place in leaves(good)) if isinstance(array, np.ndarray)]
    before = [sys.getrefcount(array) for array in held]
    entry(*good)
    for place in leaves(good):
        for _ in range(5):
            with contextlib.suppress(*REFUSED):
                entry(*put(good, place, mangled(random, take(good, place))))
        with contextlib.suppress(*REFUSED):
            entry(*put(good, place, None))
    assert [sys.getrefcount(array) for array in held] == before
