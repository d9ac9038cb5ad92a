"""The replica's invariants, with several replicas side by side that exchange encoded updates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.exchange.conftest import floats_of

from mlless.errors import DatasetError
from mlless.exchange import codec
from mlless.exchange.filter import SignificanceFilter
from mlless.exchange.update import Update, entries
from mlless.job import Adagrad, Compression, Factorization, Logistic, MergeRule, Nesterov, Sync
from mlless.kernels.arrays import ClicksArrays, RatingsArrays, TableUpdate
from mlless.models import model_of
from mlless.models.base import BatchArrays, Model, Moment
from mlless.replica import Replica, Table, TableShape, coefficients

SHAPES = (TableShape("users", 9, 4), TableShape("items", 6, 4))
RULES: tuple[MergeRule, ...] = ("sum", "mean", "sqrt-members", "sqrt-publishers")


def packed(updates: Sequence[Update]) -> dict[str, memoryview]:
    return {str(number): codec.pack(update, "none") for number, update in enumerate(updates)}


def update_of(values: dict[tuple[int, int], float], shapes: tuple[TableShape, ...] = SHAPES) -> Update:
    """Return an update of entries of the first table."""
    dense = np.zeros((shapes[0].rows, shapes[0].columns), np.float32)
    for place, value in values.items():
        dense[place] = value
    marks = dense != 0
    rows = np.flatnonzero(marks.any(axis=1)).astype(np.uint32)
    first = TableUpdate(rows, np.packbits(marks[rows], axis=1, bitorder="little"), dense[marks])
    nothing = TableUpdate(np.empty(0, np.uint32), np.empty((0, 1), np.uint8), np.empty(0, np.float32))
    return (first, *[nothing] * (len(shapes) - 1))


class TestTable:
    @pytest.mark.parametrize("columns", [1, 2, 11, 21, 33, 65, 256])
    def test_sections_are_views_of_one_row_each_at_a_cache_line(self, columns: int) -> None:
        table = Table.zeros(TableShape("t", 7, columns))
        for number, section in enumerate((table.shared, table.residual, table.state)):
            assert section.shape == (7, columns)
            section[:] = number + 1
        assert (
            table.rows.data[:, : 3 * columns].reshape(7, 3, columns) == np.array([1, 2, 3])[:, None]
        ).all()
        assert (table.last == -1).all()
        if columns > 1:
            assert table.rows.data.ctypes.data % 64 == 0
            assert table.rows.stride % 16 == 0
        assert table.rows.data.shape == (7, table.rows.stride)

    def test_a_table_of_one_column_wastes_nothing(self) -> None:
        assert Table.zeros(TableShape("features", 5, 1)).rows.stride == 4


class TestCoefficients:
    @pytest.mark.parametrize("members", [1, 2, 3, 7, 24, 100])
    def test_each_rule(self, members: int) -> None:
        assert coefficients("sum", members)[0].tolist() == [1.0]
        assert coefficients("mean", members)[0].tolist() == [np.float32(1 / members)]
        assert coefficients("sqrt-members", members)[0].tolist() == [np.float32(1 / math.sqrt(members))]
        factors, by_count = coefficients("sqrt-publishers", members)
        assert by_count
        assert factors.tolist() == [1.0, *[np.float32(1 / math.sqrt(k)) for k in range(1, members + 1)]]
        assert not any(coefficients(rule, members)[1] for rule in RULES[:3])

    def test_alone_every_rule_is_the_same(self) -> None:
        for rule in RULES:
            replica = Replica(SHAPES)
            replica.merge(packed([update_of({(2, 1): 0.7})]), rule, 1)
            assert replica.tables[0].shared[2, 1] == np.float32(0.7)


class TestMerge:
    @pytest.mark.parametrize(
        ("rule", "one", "both"),
        [("sum", 1, 1), ("mean", 1 / 4, 1 / 4), ("sqrt-members", 0.5, 0.5), ("sqrt-publishers", 1, 2**-0.5)],
    )
    def test_each_entry_is_divided_by_its_rule(self, rule: MergeRule, one: float, both: float) -> None:
        """Four members, of whom two publish: one entry both of them, one entry a single one."""
        replica = Replica(SHAPES)
        updates = [update_of({(0, 0): 1.0, (3, 2): 8.0}), update_of({(0, 0): 2.0})]
        replica.merge(packed(updates), rule, 4)
        shared = replica.tables[0].shared
        assert shared[3, 2] == np.float32(8.0) * np.float32(one)
        assert shared[0, 0] == np.float32(3.0) * np.float32(both)
        assert np.count_nonzero(shared) == 2
        assert not replica.tables[0].residual.any()

    def test_sums_follow_the_order_of_the_updates(self) -> None:
        values = (1e8, -1e8, 3.0)
        for order, expected in ((values, 3.0), (values[::-1], 0.0)):
            replica = Replica(SHAPES)
            replica.merge(packed([update_of({(1, 1): value}) for value in order]), "sum", 3)
            assert replica.tables[0].shared[1, 1] == expected

    def test_a_step_that_nobody_published_changes_nothing(self) -> None:
        replica = Replica(SHAPES)
        before = replica.digest()
        replica.merge({}, "sqrt-publishers", 4)
        replica.merge(packed([update_of({})]), "mean", 4)
        assert replica.digest() == before


class TestSnapshot:
    def filled(self) -> Replica:
        replica = Replica((*SHAPES, TableShape("intercept", 1, 1)))
        random = np.random.default_rng(1)
        for table in replica.tables:
            table.shared[:] = random.normal(0, 1, table.shared.shape)
            table.residual[:] = 1
        return replica

    def test_it_restores_shared_bit_by_bit_and_clears_the_residual(self) -> None:
        replica = self.filled()
        other = Replica(replica.shapes)
        other.tables[0].residual[:] = 5
        other.restore(replica.snapshot())
        assert other.digest() == replica.digest()
        assert not any(table.residual.any() for table in other.tables)

    def test_it_is_a_copy_even_of_a_table_of_one_entry(self) -> None:
        replica = self.filled()
        snapshot = replica.snapshot()
        before = {name: array.tobytes() for name, array in snapshot.items()}
        for table in replica.tables:
            table.shared[:] = 99
        assert {name: array.tobytes() for name, array in snapshot.items()} == before
        assert all(array.flags.c_contiguous for array in snapshot.values())

    @pytest.mark.parametrize("damage", ["missing", "shape", "type"])
    def test_a_snapshot_of_another_model_is_refused(self, damage: str) -> None:
        replica = self.filled()
        arrays = replica.snapshot()
        if damage == "missing":
            del arrays["items"]
        elif damage == "shape":
            arrays["items"] = arrays["items"][:-1]
        else:
            arrays["items"] = arrays["items"].astype(np.float64)
        with pytest.raises(DatasetError, match="table items: expected float32"):
            replica.restore(arrays)

    def test_the_digest_is_of_shared_alone_and_of_every_bit(self) -> None:
        replica = self.filled()
        before = replica.digest()
        replica.tables[0].residual[:] = 7
        replica.tables[1].state[:] = 7
        assert replica.digest() == before
        bits = replica.tables[2].rows.data.view(np.uint32)
        bits[0, 0] ^= 1
        assert replica.digest() != before
        bits[0, 0] ^= 1
        assert replica.digest() == before


@given(
    seed=st.integers(0, 2**32 - 1), workers=st.integers(1, 6), half=st.booleans(), spread=st.integers(0, 10)
)
@settings(max_examples=50)
def test_flushes_add_up_to_the_start_and_every_change(
    seed: int, workers: int, half: bool, spread: int
) -> None:
    """With numbers that float32 adds exactly, nothing is lost or counted twice, bit by bit."""
    random = np.random.default_rng(seed)
    sync = Sync(significance=0.7, half=half, merge="sum")
    replicas = [Replica(SHAPES) for _ in range(workers)]
    total = [random.integers(-999, 999, (s.rows, s.columns)) / 1024 for s in SHAPES]
    start = {s.name: t.astype(np.float32) for s, t in zip(SHAPES, total, strict=True)}
    for replica in replicas:
        replica.restore(start)
        for table, sums in zip(replica.tables, total, strict=True):
            residual = random.integers(-(1 << spread), 1 << spread, sums.shape) / 1024
            table.residual[:] = residual
            sums += residual
    updates = packed([SignificanceFilter(sync, replica).flush() for replica in replicas])
    for replica in replicas:
        replica.merge(updates, "sum", workers)
        for table, expected in zip(replica.tables, total, strict=True):
            np.testing.assert_array_equal(table.shared, expected)
            assert not table.residual.any()


MF = Factorization(users=14, items=11, factors=3, l2=0.03, centre=3.0, deviation=1.1, low=1.0, high=5.0)
LR = Logistic(features=30, l2=0.01, intercept=-0.5)


def ratings(random: np.random.Generator) -> RatingsArrays:
    users = np.sort(random.choice(14, 8, replace=False)).astype(np.uint32)
    items = np.sort(random.choice(11, 7, replace=False)).astype(np.uint32)
    starts = np.concatenate([[0], np.sort(random.integers(0, 21, 7)), [20]]).astype(np.uint32)
    return RatingsArrays(
        users,
        starts,
        items,
        random.integers(0, 7, 20).astype(np.uint16),
        2,
        random.integers(1, 6, 20).astype(np.float32),
    )


def clicks(random: np.random.Generator) -> ClicksArrays:
    features = np.sort(random.choice(30, 12, replace=False)).astype(np.uint32)
    starts = np.concatenate([[0], np.sort(random.integers(0, 41, 9)), [40]]).astype(np.uint32)
    return ClicksArrays(
        random.integers(0, 2, 10).astype(np.uint8),
        starts,
        features,
        random.integers(0, 12, 40).astype(np.uint16),
        2,
        None,
    )


class Member:
    """One worker without channels: a replica, its filter, and what it has changed in all."""

    def __init__(self, model: Model, sync: Sync) -> None:
        self.model, self.sync = model, sync
        self.replica = Replica(model.shapes)
        self.replica.restore(model.initial(np.random.default_rng(0)))
        self.publisher = SignificanceFilter(sync, self.replica)

    def train(self, batch: BatchArrays, optimizer: Adagrad | Nesterov, step: int, members: int) -> Update:
        touched = (len(batch[0] if isinstance(batch, RatingsArrays) else batch[2]), len(batch[2]))
        ready = self.publisher.prepare(step, touched if isinstance(batch, RatingsArrays) else (touched[0], 1))
        _, sent = self.model.step(self.replica, batch, optimizer, Moment(step, 0, members), ready)
        return self.publisher.take(ready, sent)

    def flush(self, optimizer: Adagrad | Nesterov, step: int) -> Update:
        self.model.settle(self.replica, optimizer, Moment(step, 0, 2), 40)
        return self.publisher.flush()


@given(
    seed=st.integers(0, 2**32 - 1),
    workers=st.integers(1, 5),
    mf=st.booleans(),
    rule=st.sampled_from(RULES),
    precision=st.sampled_from(["bsp", "float32", "float16"]),
    optimizer=st.sampled_from([Adagrad(learning_rate=0.1, damping=2.0), Nesterov(learning_rate=0.05)]),
    leaves=st.lists(st.integers(0, 5), min_size=5, max_size=5),
)
@settings(max_examples=120)
def test_replicas_stay_the_same_bits_whoever_leaves(
    seed: int,
    workers: int,
    mf: bool,
    rule: MergeRule,
    precision: str,
    optimizer: Adagrad | Nesterov,
    leaves: list[int],
) -> None:
    """Random steps; worker w flushes at step ``leaves[w]``; everyone merges the encoded updates by id."""
    sync = Sync(significance=0.0 if precision == "bsp" else 0.3, half=precision == "float16", merge=rule)
    model = model_of(MF if mf else LR)
    random = np.random.default_rng(seed)
    members = {worker: Member(model, sync) for worker in range(workers)}
    for step in range(7):
        last = step == 6
        flushing = {w for w in members if last or leaves[w] == step}
        updates: dict[int, bytes | memoryview] = {}
        own: dict[int, memoryview] = {}
        before = {w: member.replica.digest() for w, member in members.items()}
        for worker, member in members.items():
            if worker in flushing:
                update = member.flush(optimizer, step - 1)
                assert not any(table.residual.any() for table in member.replica.tables)
            else:
                batch = ratings(random) if mf else clicks(random)
                update = member.train(batch, optimizer, step, len(members) - len(flushing))
                if precision == "bsp":
                    assert not any(table.residual.any() for table in member.replica.tables)
            if entries(update):
                compression: Compression = "zstd" if seed % 2 else "none"
                own[worker] = codec.pack(update, compression)
                data = bytes(codec.seal(own[worker], compression))
                updates[worker] = codec.opened(data, model.shapes, "place")
        assert {w: member.replica.digest() for w, member in members.items()} == before, (
            "only a merge writes shared"
        )
        for worker, member in members.items():
            ordered = {str(w): own[w] if w == worker else updates[w] for w in sorted(updates)}
            member.replica.merge(ordered, rule, len(members))
        digests = {member.replica.digest() for member in members.values()}
        assert len(digests) == 1
        if not last:
            members = {w: member for w, member in members.items() if w not in flushing}
            if not members:
                return


@given(seed=st.integers(0, 2**32 - 1), half=st.booleans())
@settings(max_examples=40)
def test_no_change_is_lost_on_the_way_to_the_final_model(seed: int, half: bool) -> None:
    """Two workers, sum rule: x_0 plus every change, kept back or not, is what the final model holds."""
    model = model_of(MF)
    random = np.random.default_rng(seed)
    sync = Sync(significance=0.7, half=half, merge="sum")
    members = [Member(model, sync) for _ in range(2)]
    optimizer = Adagrad(learning_rate=0.1)
    expected = [table.shared.astype(np.float64) for table in members[0].replica.tables]
    for step in range(6):
        updates = []
        for member in members:
            before = [table.residual.astype(np.float64) for table in member.replica.tables]
            update = (
                member.train(ratings(random), optimizer, step, 2) if step < 5 else member.flush(optimizer, 4)
            )
            parts = floats_of(update)
            for table, sums, was, part in zip(member.replica.tables, expected, before, parts, strict=True):
                published = np.zeros(sums.shape)
                marks = np.unpackbits(part.masks, axis=1, count=4, bitorder="little").astype(bool)
                rows = np.zeros((len(part.rows), 4))
                rows[marks] = part.values
                published[part.rows] = rows
                sums += table.residual + published - was  # what this step changed, by the identity
            updates.append(update)
        for member in members:
            member.replica.merge(packed(updates), "sum", 2)
    for member in members:
        for table, sums in zip(member.replica.tables, expected, strict=True):
            np.testing.assert_allclose(table.shared, sums, rtol=1e-5, atol=1e-6)
