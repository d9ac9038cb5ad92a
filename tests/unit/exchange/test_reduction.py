"""Patterns with mergers: the bits of a broadcast, whatever is published, and whoever merges it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.unit.exchange.conftest import floats_of, made_update, same_bits

from mlless import kernels
from mlless.channels.embedded_store import EmbeddedStore
from mlless.errors import CodecError, MissingUpdate
from mlless.exchange.broadcast import Broadcast
from mlless.exchange.reading import Reader
from mlless.exchange.reduction import Merger, Reduction
from mlless.exchange.update import Update, cut, entries, of_tables
from mlless.job import Compression, MergeRule, Sync
from mlless.kernels import twin
from mlless.kernels.arrays import TableUpdate
from mlless.keys import merged_key, piece_key, update_key
from mlless.messages import Commit, FunctionId, Merge
from mlless.replica import Replica, TableShape

SHAPES = [TableShape("users", 300, 5, apart=True), TableShape("items", 900, 5), TableShape("bias", 1, 1)]
RULES: tuple[MergeRule, ...] = ("sum", "mean", "sqrt-members", "sqrt-publishers")


class Members:
    """The workers 0, 1, ... of a job, each with a replica; ``shards`` of 0 is a broadcast."""

    def __init__(
        self, store: EmbeddedStore, count: int, shards: int, sync: Sync, shapes: Sequence[TableShape] = SHAPES
    ) -> None:
        self.store, self.shards = store, shards
        self.functions = [(worker, 7) for worker in range(count)]
        self.replicas = [Replica(shapes) for _ in self.functions]
        readers = [Reader(store, replica) for replica in self.replicas]
        self.mergers = [
            Merger(reader, replica, sync, shards, me)
            for reader, replica, me in zip(readers, self.replicas, self.functions, strict=True)
        ]
        self.patterns = [
            Reduction(reader, tuple(shapes), sync, shards, me) if shards else Broadcast(reader, sync, me)
            for reader, me in zip(readers, self.functions, strict=True)
        ]
        for replica in self.replicas:
            for number, table in enumerate(replica.tables):
                table.shared[:] = np.random.default_rng(number).normal(size=table.shared.shape)

    def publish(self, step: int, updates: Sequence[Update]) -> tuple[FunctionId, ...]:
        published = []
        for who, pattern, update in zip(self.functions, self.patterns, updates, strict=True):
            pieces = pattern.encode(step, update)
            self.store.put_all(pieces)
            if pieces:
                published.append(who)
        return tuple(published)

    def reduce(
        self, step: int, published: tuple[FunctionId, ...], *, whole: bool = False
    ) -> tuple[FunctionId, ...]:
        """Have the shards merged, by the last workers first; return who has merged which."""
        done = []
        for shard in range(self.shards if published or whole else 0):
            merger = -1 - shard % len(self.functions)
            order = Merge(step, shard, published, whole)
            self.store.put_all(self.mergers[merger].merge(order, len(self.functions))[0])
            done.append(self.functions[merger])
        return tuple(done)

    def step(self, step: int, updates: Sequence[Update], *, whole: bool = False) -> list[int]:
        """Take a step; return the bytes that each has read to merge it into its replica."""
        published = self.publish(step, updates)
        commit = Commit(step, published, (), mergers=self.reduce(step, published, whole=whole))
        return [pattern.merge(commit, len(self.functions)) for pattern in self.patterns]


@contextmanager
def using(chosen: ModuleType) -> Iterator[None]:
    """Have updates summed and packed by the compiled kernels, if they are there, or by their twin."""
    names = ("add_update", "merge_updates", "pack_update", "sum_updates", "publish_sums", "cut_update")
    with patch.multiple(kernels, **{name: getattr(chosen, name) for name in names}):
        yield


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 5),
    shards=st.integers(1, 8),
    rule=st.sampled_from(RULES),
    half=st.booleans(),
    compression=st.sampled_from(["none", "zstd"]),
    chosen=st.sampled_from([kernels, twin]),
    shares=st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=5, max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_a_merger_gives_the_bits_of_a_broadcast(
    seed: int,
    count: int,
    shards: int,
    rule: MergeRule,
    half: bool,
    compression: Compression,
    chosen: ModuleType,
    shares: list[float],
) -> None:
    sync = Sync(significance=float(half), half=half, merge=rule, compression=compression)
    with tempfile.TemporaryDirectory() as folder, using(chosen):
        replicas = []
        for number in (0, shards):
            place = Path(folder) / str(number)
            place.mkdir()
            members = Members(EmbeddedStore(place), count, number, sync)
            for step in range(3):
                flush = step == 2  # in float32
                updates = [
                    made_update(seed + 10 * step + worker, SHAPES, half=half and not flush, share=share)
                    for worker, share in enumerate(shares[:count])
                ]
                members.step(step, updates)
            replicas += members.replicas
    assert len({replica.digest() for replica in replicas}) == 1


def small(seed: int, *, share: float = 0.5) -> Update:
    """Return an update in float16 whose values are about as large as those that are shared."""
    random = np.random.default_rng(seed)
    update = made_update(seed, SHAPES, half=True, share=share)
    values = (random.normal(size=len(part.values)).astype(np.float16).view(np.uint16) for part in update)
    return tuple(part._replace(values=v, exponent=3) for part, v in zip(update, values, strict=True))


def kept_by(members: Members) -> list[NDArray[np.float32]]:
    """Return what all mergers together keep of each table's sums; a row's merger is always the same."""
    return [np.sum(kept, axis=0) for kept in zip(*(one.kept for one in members.replicas), strict=True)]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 5),
    shards=st.integers(1, 8),
    rule=st.sampled_from(RULES),
    significance=st.sampled_from([0.0, 0.1, 0.7, 10.0]),
)
@settings(max_examples=100, deadline=None)
def test_what_a_merger_does_not_send_it_keeps_and_sends_in_the_end(
    seed: int, count: int, shards: int, rule: MergeRule, significance: float
) -> None:
    """What all merge and what is kept come to the exact sum, whoever the merger is; all merge the same."""
    exact = Sync(significance=0.7, half=True, merge=rule)
    filtered = msgspec.structs.replace(exact, merged_significance=significance)
    with tempfile.TemporaryDirectory() as folder:
        both = []
        for number, sync in enumerate((exact, filtered)):
            place = Path(folder) / str(number)
            place.mkdir()
            both.append(Members(EmbeddedStore(place), count, shards, sync))
        for step in range(4):
            updates = [small(seed + 10 * step + worker) for worker in range(count)]
            whole, thinned = (members.publish(step, updates) for members in both)
            assert whole == thinned
            for members in both:
                members.step(step, updates)
            assert len({replica.digest() for replica in both[1].replicas}) == 1
            for wanted, found, kept in zip(
                both[0].replicas[0].tables, both[1].replicas[0].tables, kept_by(both[1]), strict=True
            ):
                left = wanted.shared.astype(np.float64) - found.shared
                assert np.abs(left - (kept if len(kept) else 0)).max() < 1e-4
        members = both[1]
        assert [members.step(4, [()] * count, whole=True) for members in both]
        assert not any(kept.any() for replica in members.replicas for kept in replica.kept)
        for wanted, found in zip(both[0].replicas[0].tables, members.replicas[0].tables, strict=True):
            assert np.abs(wanted.shared - found.shared).max() < 1e-4
        assert len({replica.digest() for replica in members.replicas}) == 1


def test_sums_pass_a_filter_whose_threshold_falls_with_the_step(tmp_path: Path) -> None:
    """``|sum| > v / sqrt(t + 1) * |shared|``; what is kept is added to the next sum of the row."""
    sync = Sync(significance=0.7, half=True, merge="sum", merged_significance=2.0)
    members = Members(EmbeddedStore(tmp_path), 2, 2, sync)
    bias = members.replicas[0].tables[2].shared
    for replica in members.replicas:
        replica.tables[2].shared[:] = 1.0
    sent = []
    for step in range(4):
        part = TableUpdate(np.zeros(1, np.uint32), np.ones((1, 1), np.uint8), np.array([0.4], np.float32))
        nothing = of_tables(everything(0.0), [False, False, False])
        update = (*nothing[:2], part)
        before = float(bias[0, 0])
        members.step(step, [update, ()])
        sent.append(round(float(bias[0, 0]) - before, 2))
    # 0.4 < 2 / sqrt(1), 0.8 < 2 / sqrt(2), 1.2 > 2 / sqrt(3), then 0.4 < 2 / sqrt(4) * 2.2
    assert sent == [0.0, 0.0, 1.2, 0.0]
    assert kept_by(members)[2][0, 0] == pytest.approx(0.4, abs=1e-3)


def test_nothing_is_kept_of_another_shard_when_one_is_sent_whole(tmp_path: Path) -> None:
    sync = Sync(significance=0.7, half=True, merge="sum", merged_significance=10.0)
    members = Members(EmbeddedStore(tmp_path), 1, 3, sync)
    members.step(0, [small(1, share=1.0)])
    (replica,) = members.replicas
    before = replica.kept[1].copy()
    members.mergers[0].merge(Merge(1, 1, (), whole=True), 1)
    shard = np.arange(len(before)) // 64 % 3
    assert before[shard == 1].any()
    assert not replica.kept[1][shard == 1].any()
    assert np.array_equal(replica.kept[1][shard != 1], before[shard != 1])


@given(seed=st.integers(0, 2**32 - 1), shards=st.integers(1, 8), half=st.booleans())
@settings(max_examples=50, deadline=None)
def test_pieces_are_the_update_and_a_row_is_always_in_the_same(seed: int, shards: int, half: bool) -> None:
    update = made_update(seed, SHAPES, half=half)
    parts = cut(update, shards)
    assert len(parts) == shards
    assert sum(map(entries, parts)) == entries(update)
    for number, (shape, whole) in enumerate(zip(SHAPES, floats_of(update), strict=True)):
        dense = np.zeros((shape.rows, shape.columns), np.float32)
        for shard, part in enumerate(floats_of(part)[number] for part in parts):
            assert (np.diff(part.rows.astype(np.int64)) > 0).all()
            assert set((part.rows // 64 % shards).tolist()) <= {shard}
            marks = np.unpackbits(part.masks, axis=1, count=shape.columns, bitorder="little").astype(bool)
            rows = np.zeros(marks.shape, np.float32)
            rows[marks] = part.values
            dense[part.rows] += rows
        marks = np.unpackbits(whole.masks, axis=1, count=shape.columns, bitorder="little").astype(bool)
        assert np.array_equal(dense[whole.rows][marks].view(np.uint32), whole.values.view(np.uint32))
    assert same_bits(floats_of(cut(update, 1)[0]), floats_of(update))


def test_tables_that_are_not_wanted_are_empty() -> None:
    update = made_update(1, SHAPES, half=True)
    left = of_tables(update, [True, False, True])
    assert same_bits([left[0], left[2]], [update[0], update[2]])
    assert len(left[1].rows) == len(left[1].masks) == len(left[1].values) == 0


def everything(value: float) -> Update:
    """Return an update that publishes the value for every parameter."""
    return tuple(
        TableUpdate(
            np.arange(shape.rows, dtype=np.uint32),
            np.packbits(np.ones((shape.rows, shape.columns), bool), axis=1, bitorder="little"),
            np.full(shape.rows * shape.columns, value, np.float32),
        )
        for shape in SHAPES
    )


@pytest.mark.parametrize("values", [(3e38, 3e38), (-3e38, -3e38), (3e38, 3e38, -3e38, -3e38, -3e38)])
def test_a_sum_that_is_no_number_is_the_largest_one_and_ends_nothing(
    tmp_path: Path, values: tuple[float, ...]
) -> None:
    """The model has diverged, which its next step finds; an update with such a value would be refused."""
    sync = Sync(significance=0.0, half=False, merge="sum")
    members = Members(EmbeddedStore(tmp_path), len(values), 2, sync)
    members.step(0, [everything(value) for value in values])
    _, items, bias = members.replicas[0].tables
    assert (np.abs(items.shared) >= 3e38).all()
    assert (np.abs(bias.shared) >= 3e38).all()
    assert len({replica.digest() for replica in members.replicas}) == 1


def test_changes_that_cancel_out_are_no_change(tmp_path: Path) -> None:
    members = Members(EmbeddedStore(tmp_path), 2, 2, Sync(significance=0.0, half=False, merge="sum"))
    before = members.replicas[0].digest()
    members.step(0, [everything(value) for value in (2.5, -2.5)])
    assert {replica.digest() for replica in members.replicas} == {before}


def test_everyone_reads_what_is_trained_apart_and_the_sums_and_nothing_of_its_own(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    sync = Sync(significance=0.7, half=True, merge="sqrt-members")
    members = Members(store, 4, 3, sync)
    published = members.publish(5, [made_update(worker, SHAPES, half=True) for worker in range(4)])

    def size(*keys: str) -> int:
        return sum(map(len, store.get(keys)))

    for shard in range(3):
        merger = members.functions[shard]
        merged, read = members.mergers[shard].merge(Merge(5, shard, published), 4)
        assert read == size(*(piece_key(5, who, shard) for who in published if who != merger))
        assert list(merged) == [merged_key(5, merger, shard)]
        store.put_all(merged)
    commit = Commit(5, published, (), mergers=tuple(members.functions[:3]))
    for number, (who, pattern) in enumerate(zip(members.functions, members.patterns, strict=True)):
        apart = [update_key(5, other) for other in published if other != who]
        sums = [merged_key(5, members.functions[shard], shard) for shard in range(3) if shard != number]
        assert pattern.merge(commit, 4) == size(*apart, *sums)


def test_a_model_without_rows_trained_apart_has_no_pieces_for_everyone(tmp_path: Path) -> None:
    shapes = SHAPES[1:]
    members = Members(EmbeddedStore(tmp_path), 2, 2, Sync(significance=0.0, half=False, merge="sum"), shapes)
    pieces = members.patterns[0].encode(0, made_update(0, shapes, half=False))
    assert sorted(pieces) == [piece_key(0, (0, 7), 0), piece_key(0, (0, 7), 1)]


def test_where_nobody_publishes_nothing_is_read_or_merged(tmp_path: Path) -> None:
    members = Members(EmbeddedStore(tmp_path), 2, 2, Sync(significance=0.0, half=False, merge="sum"))
    before = members.replicas[0].digest()
    assert members.step(0, [(), made_update(0, SHAPES, half=False, share=0.0)]) == [0, 0]
    assert members.replicas[0].digest() == before


@pytest.mark.parametrize("trouble", ["damaged", "missing"])
def test_a_piece_or_a_sum_in_trouble_is_named_and_nothing_is_merged(tmp_path: Path, trouble: str) -> None:
    store = EmbeddedStore(tmp_path)
    members = Members(store, 3, 2, Sync(significance=0.0, half=False, merge="sum"))
    published = members.publish(4, [made_update(worker, SHAPES, half=False) for worker in range(3)])

    def harm(key: str) -> None:
        store.delete([key])
        if trouble == "damaged":
            store.put(key, [b"no update"])

    kept = store.get([piece_key(4, (1, 7), 1)])
    error = CodecError if trouble == "damaged" else MissingUpdate
    harm(piece_key(4, (1, 7), 1))
    with pytest.raises(error, match=r"update/4/1\.7/1"):
        members.mergers[0].merge(Merge(4, 1, published), 3)
    store.put(piece_key(4, (1, 7), 1), kept)
    commit = Commit(4, published, (), mergers=members.reduce(4, published))
    harm(merged_key(4, commit.mergers[1], 1))
    before = members.replicas[0].digest()
    with pytest.raises(error, match=r"merged/4/1\.7/1"):
        members.patterns[0].merge(commit, 3)
    assert members.replicas[0].digest() == before


def test_a_sum_of_large_updates_is_read_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits, and never more of them in memory than fit."""
    sync = Sync(significance=0.0, half=False, merge="sqrt-publishers")
    digests = []
    for at_once in (1 << 26, 1):
        monkeypatch.setattr("mlless.exchange.reading._AT_ONCE", at_once)
        place = tmp_path / str(at_once)
        place.mkdir()
        members = Members(EmbeddedStore(place), 4, 2, sync)
        members.step(0, [made_update(worker, SHAPES, half=False) for worker in range(4)])
        digests += [replica.digest() for replica in members.replicas]
    assert len(set(digests)) == 1


def test_blocks_of_rows_that_are_touched_most_are_spread_over_the_shards() -> None:
    """The first rows are those that many workers touch: no merger has them all."""
    rows = np.arange(64 * 16, dtype=np.uint32)
    update = (TableUpdate(rows, np.ones((len(rows), 1), np.uint8), np.ones(len(rows), np.float32)),)
    assert {entries(part) for part in cut(update, 8)} == {128}


def test_rows_that_are_owned_have_no_piece_and_nobody_reads_any(tmp_path: Path) -> None:
    shapes = [replace(SHAPES[0], owned=True), *SHAPES[1:]]
    members = Members(EmbeddedStore(tmp_path), 3, 2, Sync(significance=0.0, half=False, merge="sum"), shapes)
    nothing, *items = everything(1.0)
    update = (of_tables((nothing,), [False])[0], *items)
    pieces = members.patterns[0].encode(3, update)
    assert sorted(pieces) == [piece_key(3, (0, 7), 0), piece_key(3, (0, 7), 1)]
    before = members.replicas[0].tables[2].shared.item()
    members.step(4, [update] * 3)
    assert members.replicas[0].tables[2].shared.item() == pytest.approx(before + 3)
    assert len({replica.digest() for replica in members.replicas}) == 1
