"""The significance filter and the residual: nothing that moved is ever lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.exchange.conftest import floats_of

from mlless import kernels
from mlless.errors import NotFinite
from mlless.exchange import codec
from mlless.exchange.filter import HEADROOM, SignificanceFilter
from mlless.exchange.update import Update
from mlless.job import Adagrad, Factorization, Logistic, MergeRule, Sync
from mlless.kernels import twin
from mlless.kernels.arrays import ClicksArrays, Floats, RatingsArrays, Sent
from mlless.models.base import Moment
from mlless.models.factorization import FactorizationModel
from mlless.models.logistic import LogisticModel
from mlless.replica import Replica, TableShape

USERS, ITEMS, FACTORS = 12, 9, 4
MODEL = FactorizationModel(
    Factorization(
        users=USERS, items=ITEMS, factors=FACTORS, l2=0.02, centre=3.0, deviation=1.0, low=1.0, high=5.0
    )
)


def sync(significance: float, half: bool, merge: MergeRule = "sum") -> Sync:
    return Sync(significance=significance, half=half, merge=merge)


def batch(random: np.random.Generator) -> RatingsArrays:
    users = np.flatnonzero(random.random(USERS) < 0.6).astype(np.uint32)
    items = np.flatnonzero(random.random(ITEMS) < 0.6).astype(np.uint32)
    count = 15 if len(users) and len(items) else 0
    cuts = np.sort(random.integers(0, count + 1, max(0, len(users) - 1)))
    starts = np.concatenate([[0], cuts, [count]])[: len(users) + 1].astype(np.uint32)
    local = random.integers(0, max(1, len(items)), count).astype(np.uint16)
    return RatingsArrays(users, starts, items, local, 2, random.integers(1, 6, count).astype(np.float32))


def started(seed: int) -> Replica:
    replica = Replica(MODEL.shapes)
    replica.restore(MODEL.initial(np.random.default_rng(seed)))
    return replica


def train(
    replica: Replica, publisher: SignificanceFilter, arrays: RatingsArrays, step: int, rate: float = 0.1
) -> Update:
    ready = publisher.prepare(step, (len(arrays.users), len(arrays.items)))
    _, sent = MODEL.step(replica, arrays, Adagrad(learning_rate=rate), Moment(step, 0, 3), ready)
    return publisher.take(ready, sent)


def dense(update: Update, shapes: tuple[TableShape, ...]) -> list[Floats]:
    tables = []
    for shape, part in zip(shapes, floats_of(update), strict=True):
        marks = np.unpackbits(part.masks, axis=1, count=shape.columns, bitorder="little").astype(bool)
        rows = np.zeros((len(part.rows), shape.columns), np.float32)
        rows[marks] = part.values
        table = np.zeros((shape.rows, shape.columns), np.float32)
        table[part.rows] = rows
        tables.append(table)
    return tables


@given(seed=st.integers(0, 10_000), significance=st.sampled_from([0.0, 0.3, 0.7, 3.0]), half=st.booleans())
@settings(max_examples=80)
def test_publishing_preserves_every_parameter_exactly(seed: int, significance: float, half: bool) -> None:
    """Beside one that publishes nothing, a replica's residual and update add up to the same change."""
    half = half and significance > 0
    random = np.random.default_rng(seed)
    filtered, silent = started(seed), started(seed)
    ours = SignificanceFilter(sync(significance, half), filtered)
    nobody = SignificanceFilter(sync(1e30, False), silent)
    arrays = batch(random)
    published = dense(train(filtered, ours, arrays, 0), MODEL.shapes)
    beside = dense(train(silent, nobody, arrays, 0), MODEL.shapes)  # entries where shared is zero
    for one, other, sent, also in zip(filtered.tables, silent.tables, published, beside, strict=True):
        assert one.shared.tobytes() == other.shared.tobytes(), "only a merge writes shared"
        assert not also[other.shared != 0].any()
        assert (one.residual.astype(np.float64) + sent == other.residual.astype(np.float64) + also).all()


@given(seed=st.integers(0, 10_000), steps=st.integers(1, 6))
@settings(max_examples=50)
def test_bsp_leaves_no_residual_after_any_step(seed: int, steps: int) -> None:
    random = np.random.default_rng(seed)
    replica = started(seed)
    publisher = SignificanceFilter(sync(0.0, False), replica)
    for step in range(steps):
        update = train(replica, publisher, batch(random), step)
        assert not any(table.residual.any() for table in replica.tables)
        replica.merge({"own": codec.pack(update, "none")}, "sum", 1)


@given(seed=st.integers(0, 10_000), step=st.integers(0, 10_000), v=st.sampled_from([0.05, 0.35, 0.7, 2.0]))
@settings(max_examples=80)
def test_threshold_is_v_over_the_root_of_the_step_times_shared(seed: int, step: int, v: float) -> None:
    replica = started(seed)
    publisher = SignificanceFilter(sync(v, False), replica)
    arrays = batch(np.random.default_rng(seed))
    silent = started(seed)
    beside = train(silent, SignificanceFilter(sync(1e30, False), silent), arrays, step)
    published = dense(train(replica, publisher, arrays, step), MODEL.shapes)
    for table, sent, other, also in zip(
        replica.tables, published, silent.tables, dense(beside, MODEL.shapes), strict=True
    ):
        size = np.abs(other.residual + also)
        bound = np.float32(v / math.sqrt(step + 1)) * np.abs(other.shared)
        np.testing.assert_array_equal(sent != 0, size > bound)
        np.testing.assert_array_equal(table.residual[size <= bound], other.residual[size <= bound])


def test_an_insignificant_change_adds_up_until_it_is_published() -> None:
    """Steps too small to publish one by one are published together once they exceed the threshold."""
    model = LogisticModel(Logistic(features=1, l2=0.0, intercept=0.0))
    replica = Replica(model.shapes)
    replica.restore({"features": np.ones((1, 1), np.float32), "intercept": np.zeros((1, 1), np.float32)})
    publisher = SignificanceFilter(sync(4.0, False), replica)
    arrays = ClicksArrays(
        np.ones(1, np.uint8),
        np.array([0, 1], np.uint32),
        np.zeros(1, np.uint32),
        np.zeros(1, np.uint16),
        2,
        None,
    )
    published = []
    for step in range(12):
        ready = publisher.prepare(15, (1, 1))  # a threshold of 4 / sqrt(16) = 1 of the weight of 1
        _, sent = model.step(replica, arrays, Adagrad(learning_rate=0.3), Moment(step, 0, 1), ready)
        published.append(dense(publisher.take(ready, sent), model.shapes)[0][0, 0])
    first = next(n for n, value in enumerate(published) if value)
    assert first > 1
    assert published[first] > 1.0
    assert not any(published[:first])


@given(seed=st.integers(0, 10_000), half=st.booleans())
@settings(max_examples=50)
def test_flush_publishes_the_whole_residual_and_leaves_none(seed: int, half: bool) -> None:
    replica = started(seed)
    random = np.random.default_rng(seed)
    for table in replica.tables:
        table.residual[:] = random.normal(0, 1e-3, table.residual.shape) * (
            random.random(table.residual.shape) < 0.5
        )
    before = [(table.residual.copy(), table.shared.copy()) for table in replica.tables]
    update = SignificanceFilter(sync(0.7, half), replica).flush()
    assert not any(part.values.dtype == np.uint16 for part in update), "a flush is exact"
    for table, sent, (residual, shared) in zip(
        replica.tables, dense(update, MODEL.shapes), before, strict=True
    ):
        assert not table.residual.any()
        np.testing.assert_array_equal(sent, residual)
        np.testing.assert_array_equal(table.shared, shared)


@pytest.mark.skipif(kernels.NAME != "native", reason="the kernels are not compiled")
@pytest.mark.parametrize("alone", [False, True])
def test_a_flush_is_compiled(monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    monkeypatch.setattr(twin, "publish", None)
    replica = started(0)
    replica.tables[0].residual[3, 1] = 1.0
    SignificanceFilter(sync(0.7, True), replica, alone=alone).flush()
    assert not replica.tables[0].residual.any()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_residual_that_is_not_finite_is_an_error(poison: float) -> None:
    replica = started(0)
    replica.tables[1].residual[2, 1] = poison
    with pytest.raises(NotFinite, match="items"):
        SignificanceFilter(sync(0.7, True), replica).flush()
    replica.tables[1].residual[2, 1] = poison
    arrays = batch(np.random.default_rng(1))._replace(items=np.array([2], np.uint32))
    arrays = arrays._replace(local=np.zeros_like(arrays.local))
    with pytest.raises(NotFinite):
        train(replica, SignificanceFilter(sync(0.7, True), replica), arrays, 0)


@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.1, 10.0])
def test_the_exponent_follows_the_size_of_the_changes(rate: float) -> None:
    """After a step or two the largest half is near 2^HEADROOM, with room to grow and little lost."""
    replica = started(0)
    random = np.random.default_rng(2)
    publisher = SignificanceFilter(sync(1e-9, True), replica)
    for step in range(3):
        update = train(replica, publisher, batch(random), step, rate)
    for part in update:
        largest = np.abs(part.values.view(np.float16).astype(np.float64)).max()
        assert 2.0 ** (HEADROOM - 7) <= largest <= 2.0 ** (HEADROOM + 6)
        assert np.abs(floats_of(update)[0].values).max() <= 1e3 * rate


@pytest.mark.parametrize(
    ("largest", "exponent"), [(1e-38, 100), (2.0**-10, 19), (1.0, 9), (1023.0, 0), (1024.0, -1), (3e38, -100)]
)
def test_exponents_follow_the_largest_value_within_bounds(largest: float, exponent: int) -> None:
    publisher = SignificanceFilter(sync(0.7, True), started(0))
    ready = publisher.prepare(0, (1, 1))
    assert [box.exponent for box in ready.outboxes] == [0, 0]
    publisher.take(ready, [Sent(0, 0, largest, 1), Sent(0, 0, 0.0, 1)])
    # Where nothing was published the exponent stays.
    assert [box.exponent for box in publisher.prepare(1, (1, 1)).outboxes] == [exponent, 0]


def test_float32_has_no_exponent() -> None:
    publisher = SignificanceFilter(sync(0.7, False), started(0))
    ready = publisher.prepare(0, (1, 1))
    update = publisher.take(ready, [Sent(0, 0, 1e-9, 1), Sent(0, 0, 1e9, 1)])
    assert [part.exponent for part in update] == [0, 0]
    assert [box.exponent for box in publisher.prepare(1, (1, 1)).outboxes] == [0, 0]


def test_outboxes_are_kept_from_step_to_step_and_grow_as_needed() -> None:
    replica = started(0)
    publisher = SignificanceFilter(sync(0.7, True), replica)
    first = publisher.prepare(0, (5, 5)).outboxes[0]
    assert publisher.prepare(1, (4, 5)).outboxes[0].values is first.values
    grown = publisher.prepare(2, (6, 5)).outboxes[0]
    assert (len(grown.rows), grown.values.size) == (6, 6 * (FACTORS + 1) + 1)
