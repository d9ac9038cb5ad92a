"""The step kernels: the compiled ones against their twin, and the fused filter bit by bit."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.kernels.conftest import Problems, clone, contents, merge, outbox, published

from mlless.kernels import twin
from mlless.kernels.arrays import Floats, Outbox, Rows, Rule, TableUpdate
from mlless.kernels.twin import FLOATS, HALVES, MERGED

COLUMNS = (2, 3, 8, 9, 11, 12, 21, 33, 40, 65, 100, 256)


class Case(NamedTuple):
    """One step: sizes, rule and filter."""

    seed: int
    columns: int
    touched: tuple[int, int]
    ratings: int
    width: int
    kind: int
    decay: float
    l2: float
    threshold: float
    half: int
    exponent: int

    @property
    def rule(self) -> Rule:
        return Rule(self.kind, 0.1, 1e-3, 0.8 if self.kind else 0.0, self.decay, 5)


cases = st.builds(
    Case,
    seed=st.integers(0, 2**32 - 1),
    columns=st.sampled_from(COLUMNS),
    touched=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    ratings=st.integers(0, 60),
    width=st.sampled_from([2, 4]),
    kind=st.sampled_from([0, 1]),
    decay=st.sampled_from([0.0, 0.01]),
    l2=st.sampled_from([0.0, 0.05]),
    threshold=st.sampled_from([0.0, 0.1, 0.7]),
    half=st.sampled_from([0, 1]),
    exponent=st.integers(-3, 14),
)
SMALLEST = Case(0, 2, (1, 1), 1, 2, 0, 0.0, 0.0, 0.0, 0, 0)


def sections(table: Rows, columns: int) -> tuple[Floats, Floats, Floats]:
    shared, residual, state = (table.data[:, n * columns : (n + 1) * columns] for n in range(3))
    return shared, residual, state


def compare(
    case: Case, columns: int, ours: Rows, theirs: Rows, ours_sent: Floats, theirs_sent: Floats
) -> None:
    """The same numbers, whether an entry at the threshold was published or kept back."""
    mine, other = sections(ours, columns), sections(theirs, columns)
    assert mine[0].tobytes() == other[0].tobytes(), "a step must not write shared"
    np.testing.assert_allclose(mine[1] + ours_sent, other[1] + theirs_sent, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(mine[2], other[2], rtol=2e-4, atol=2e-5)
    last = 3 * columns
    np.testing.assert_array_equal(ours.data.view(np.int32)[:, last], theirs.data.view(np.int32)[:, last])
    if last + 1 < ours.stride:
        assert not ours.data[:, last + 1 :].any(), "the padding of a row is not for writing"


class TestFactorization:
    @given(case=cases)
    @example(case=SMALLEST)
    @example(case=SMALLEST._replace(touched=(0, 3), ratings=0))
    @example(case=SMALLEST._replace(touched=(3, 0), ratings=0))
    @settings(max_examples=150)
    def test_compiled_and_twin_give_the_same_numbers(self, native: ModuleType, case: Case) -> None:
        problems = Problems(case.seed)
        users, items = problems.table(13, case.columns), problems.table(17, case.columns)
        batch = problems.ratings(13, 17, touched=case.touched, count=case.ratings, width=case.width)
        results = []
        for kernels in (native, twin):
            u, i = clone(users), clone(items)
            boxes = (
                outbox(len(batch.users), case.columns, case.exponent),
                outbox(len(batch.items), case.columns, case.exponent),
            )
            loss, *sent = kernels.factorization_step(
                u,
                i,
                case.columns,
                batch,
                3.5,
                0.9,
                case.l2,
                0.5,
                case.rule,
                case.rule._replace(epsilon=0.5),
                case.threshold,
                case.half,
                case.half,
                *boxes,
            )
            dense = [
                published(box, s, (rows, case.columns), case.half)
                for box, s, rows in zip(boxes, sent, (13, 17), strict=True)
            ]
            results.append((loss, u, i, *dense))
        (loss, u, i, u_sent, i_sent), (twin_loss, tu, ti, tu_sent, ti_sent) = results
        assert loss == pytest.approx(twin_loss, rel=1e-5, abs=1e-6)
        compare(case, case.columns, u, tu, u_sent, tu_sent)
        compare(case, case.columns, i, ti, i_sent, ti_sent)

    @given(case=cases)
    @settings(max_examples=150)
    def test_a_step_that_moves_nothing_publishes_the_same_bits(self, native: ModuleType, case: Case) -> None:
        problems = Problems(case.seed)
        users, items = problems.table(13, case.columns), problems.table(17, case.columns)
        batch = problems.ratings(13, 17, touched=case.touched, count=case.ratings, width=case.width)
        rule = Rule(0, 0.0, 1.0, 0.0, 0.0, 9)
        results = []
        for kernels in (native, twin):
            u, i = clone(users), clone(items)
            boxes = (
                outbox(len(batch.users), case.columns, case.exponent),
                outbox(len(batch.items), case.columns, case.exponent),
            )
            _, *sent = kernels.factorization_step(
                u,
                i,
                case.columns,
                batch,
                3.5,
                1.0,
                0.0,
                1.0,
                rule,
                rule,
                case.threshold,
                case.half,
                case.half,
                *boxes,
            )
            filled = [contents(box, s, case.half) for box, s in zip(boxes, sent, strict=True)]
            left = [sections(table, case.columns)[1].tobytes() for table in (u, i)]
            results.append((filled, left))
        assert results[0] == results[1]

    @given(case=cases)
    @settings(max_examples=60)
    def test_error_is_the_same_and_writes_nothing(self, native: ModuleType, case: Case) -> None:
        problems = Problems(case.seed)
        users, items = problems.table(13, case.columns), problems.table(17, case.columns)
        before = users.data.tobytes(), items.data.tobytes()
        batch = problems.ratings(13, 17, touched=case.touched, count=case.ratings, width=case.width)
        errors = [
            k.factorization_error(users, items, case.columns, batch, 3.0, 1.2, 1.0, 5.0)
            for k in (native, twin)
        ]
        assert errors[0] == pytest.approx(errors[1], rel=1e-5, abs=1e-6)
        assert (users.data.tobytes(), items.data.tobytes()) == before

    def test_rows_outside_the_batch_are_untouched(self, kernel: ModuleType) -> None:
        problems = Problems(3)
        users, items = problems.table(50, 21), problems.table(50, 21)
        before = clone(users), clone(items)
        batch = problems.ratings(50, 50, touched=(7, 9), count=40, width=2)
        kernel.factorization_step(
            users,
            items,
            21,
            batch,
            3.0,
            1.0,
            0.1,
            1.0,
            *[Rule(0, 0.1, 0.0, 0.0, 0.0, 7)] * 2,
            0.0,
            0,
            0,
            outbox(7, 21),
            outbox(9, 21),
        )
        for table, was, ids in ((users, before[0], batch.users), (items, before[1], batch.items)):
            rest = np.setdiff1d(np.arange(50), ids)
            assert table.data[rest].tobytes() == was.data[rest].tobytes()
            assert table.data[ids].tobytes() != was.data[ids].tobytes()

    def test_a_number_that_is_not_finite_is_reported(self, kernel: ModuleType) -> None:
        for poison in (np.nan, np.inf, -np.inf):
            problems = Problems(4)
            users, items = problems.table(5, 11), problems.table(5, 11)
            batch = problems.ratings(5, 5, touched=(5, 5), count=20, width=2)
            batch.ratings[3] = poison
            _, user_sent, item_sent = kernel.factorization_step(
                users,
                items,
                11,
                batch,
                3.0,
                1.0,
                0.0,
                1.0,
                *[Rule(0, 0.1, 0.0, 0.0, 0.0, 7)] * 2,
                0.0,
                0,
                0,
                outbox(5, 11),
                outbox(5, 11),
            )
            assert not user_sent[3]
            assert not item_sent[3]


class TestLogistic:
    @given(case=cases, valued=st.booleans(), rows=st.integers(1, 9))
    @settings(max_examples=150)
    def test_compiled_and_twin_give_the_same_numbers(
        self, native: ModuleType, case: Case, valued: bool, rows: int
    ) -> None:
        problems = Problems(case.seed)
        features, intercept = problems.table(14, 1), problems.table(1, 1)
        batch = problems.clicks(
            14, touched=case.touched[0], rows=rows, entries=case.ratings, width=case.width, valued=valued
        )
        results = []
        for kernels in (native, twin):
            f, b = clone(features), clone(intercept)
            boxes = outbox(len(batch.features), 1, case.exponent), outbox(1, 1, case.exponent)
            loss, *sent = kernels.logistic_step(f, b, batch, case.rule, case.threshold, case.half, *boxes)
            dense = [
                published(box, s, (n, 1), case.half) for box, s, n in zip(boxes, sent, (14, 1), strict=True)
            ]
            results.append((loss, f, b, *dense))
        (loss, f, b, f_sent, b_sent), (twin_loss, tf, tb, tf_sent, tb_sent) = results
        assert loss == pytest.approx(twin_loss, rel=1e-5, abs=1e-6)
        compare(case, 1, f, tf, f_sent, tf_sent)
        compare(case, 1, b, tb, b_sent, tb_sent)

    @given(case=cases, valued=st.booleans(), rows=st.integers(1, 9))
    @settings(max_examples=100)
    def test_compiled_and_twin_weigh_rows_alike(
        self, native: ModuleType, case: Case, valued: bool, rows: int
    ) -> None:
        problems = Problems(case.seed)
        features, intercept = problems.table(14, 1), problems.table(1, 1)
        batch = problems.clicks(
            14, touched=case.touched[0], rows=rows, entries=case.ratings, width=case.width, valued=valued
        )
        batch = batch._replace(weights=problems.random.random(rows).astype(np.float32) * 3)
        losses, sent = [], []
        for kernels in (native, twin):
            f, b = clone(features), clone(intercept)
            boxes = outbox(len(batch.features), 1), outbox(1, 1)
            loss, *parts = kernels.logistic_step(f, b, batch, case.rule, 0.0, 0, *boxes)
            losses.append(loss)
            sent.append(
                [published(box, s, (n, 1), 0) for box, s, n in zip(boxes, parts, (14, 1), strict=True)]
            )
        assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1e-6)
        for mine, other in zip(*sent, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("valued", [False, True])
    def test_weights_of_one_give_the_same_bits(self, kernel: ModuleType, valued: bool) -> None:
        results = []
        for weights in (None, np.ones(7, np.float32)):
            problems = Problems(3)
            features, intercept = problems.table(9, 1), problems.table(1, 1)
            batch = problems.clicks(9, touched=6, rows=7, entries=30, width=2, valued=valued)
            rule = Rule(0, 0.1, 0.01, 0.0, 0.1, 5)
            loss, *_ = kernel.logistic_step(
                features, intercept, batch._replace(weights=weights), rule, 0.0, 0, outbox(6, 1), outbox(1, 1)
            )
            results.append((loss, features.data.tobytes(), intercept.data.tobytes()))
        assert results[0] == results[1]

    def test_a_weight_multiplies_loss_and_gradient(self, kernel: ModuleType) -> None:
        """A row of weight 2 does what two rows do, but for the mean, which is over rows."""
        problems = Problems(4)
        features, intercept = problems.table(5, 1), problems.table(1, 1)
        batch = problems.clicks(5, touched=3, rows=1, entries=4, width=2, valued=True)
        rule, losses, moved = Rule(1, 1.0, 0.0, 0.0, 0.0, 0), [], []
        for weights in (None, np.full(1, 2, np.float32)):
            box = outbox(1, 1)
            features.data[:, 1:] = intercept.data[:, 1:] = 0
            weighted = batch._replace(weights=weights)
            loss, _, sent = kernel.logistic_step(
                features, intercept, weighted, rule, 0.0, 0, outbox(3, 1), box
            )
            losses.append(loss)
            moved.append(published(box, sent, (1, 1), 0)[0, 0])
        assert losses[1] == pytest.approx(2 * losses[0])
        assert moved[1] == pytest.approx(2 * moved[0])

    @given(case=cases, valued=st.booleans())
    @settings(max_examples=60)
    def test_margins_are_the_same(self, native: ModuleType, case: Case, valued: bool) -> None:
        problems = Problems(case.seed)
        features, intercept = problems.table(14, 1), problems.table(1, 1)
        batch = problems.clicks(
            14, touched=case.touched[0], rows=5, entries=case.ratings, width=case.width, valued=valued
        )
        margins = np.full((2, 5), np.nan, np.float32)
        native.logistic_margins(features, intercept, batch, margins[0])
        twin.logistic_margins(features, intercept, batch, margins[1])
        np.testing.assert_allclose(margins[0], margins[1], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("margin", [-1e30, -701.0, -700.0, -88.0, -1e-8, 0.0, 1e-8, 30.0, 700.0, 1e30])
    @pytest.mark.parametrize("label", [0, 1])
    def test_loss_and_gradient_at_any_margin(self, kernel: ModuleType, margin: float, label: int) -> None:
        problems = Problems(0)
        features, intercept = problems.table(3, 1), problems.table(1, 1)
        intercept.data[:] = 0
        intercept.data[0, 0] = margin
        batch = problems.clicks(3, touched=0, rows=1, entries=0, width=2, valued=False)
        batch.labels[0] = label
        rule = Rule(1, 1.0, 0.0, 0.0, 0.0, 0)  # plain gradient descent
        box = outbox(1, 1)
        loss, _, sent = kernel.logistic_step(features, intercept, batch, rule, 0.0, 0, outbox(0, 1), box)
        wide = float(np.float32(margin))
        expected = np.logaddexp(0.0, -wide if label else wide)
        assert loss == pytest.approx(expected, rel=1e-9, abs=1e-14)
        gradient = label - 1 / (1 + np.exp(-wide)) if wide > -700 else label
        assert published(box, sent, (1, 1), 0)[0, 0] == pytest.approx(gradient, rel=1e-6, abs=1e-12)

    def test_a_weight_that_is_not_a_number_is_not_a_small_loss(self, kernel: ModuleType) -> None:
        problems = Problems(0)
        features, intercept = problems.table(3, 1), problems.table(1, 1)
        intercept.data[0, 0] = np.nan
        batch = problems.clicks(3, touched=3, rows=4, entries=9, width=2, valued=False)
        loss, _, sent = kernel.logistic_step(
            features, intercept, batch, Rule(0, 0.1, 0.0, 0.0, 0.0, 5), 0.0, 0, outbox(3, 1), outbox(1, 1)
        )
        assert np.isnan(loss)
        assert not sent[3]

    def test_intercept_is_free_of_decay(self, kernel: ModuleType) -> None:
        moved = []
        for decay in (0.0, 0.5):
            problems = Problems(8)
            features, intercept = problems.table(6, 1), problems.table(1, 1)
            batch = problems.clicks(6, touched=4, rows=5, entries=12, width=2, valued=True)
            rule = Rule(0, 0.1, 0.0, 0.0, decay, 5)
            kernel.logistic_step(features, intercept, batch, rule, 1e9, 0, outbox(4, 1), outbox(1, 1))
            moved.append((intercept.data.tobytes(), features.data.tobytes()))
        assert moved[0][0] == moved[1][0]
        assert moved[0][1] != moved[1][1]


def halves_of_interest() -> Floats:
    """Return every finite half, what lies between two, their neighbours, tiny and huge numbers."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (halves[1:].astype(np.float64) + halves[:-1]) / 2
    exact = np.concatenate([halves, between.astype(np.float32)])
    edges = np.array(
        [65504, 65519.99, 65520, 65536, 1e6, 3e38, 2**-24, 2**-25, 2**-26, 1e-30, 1e-45], np.float32
    )
    near = np.concatenate(
        [exact, np.nextafter(exact, np.float32(0)), np.nextafter(exact, np.float32(1e9)), edges]
    )
    return np.concatenate([near, -near])


def publish_all(
    kernel: ModuleType, residual: Floats, exponent: int, half: int
) -> tuple[Floats, Floats, float]:
    """Return what an unmoving step publishes of a one-column table, what it leaves, the largest value."""
    problems = Problems(0)
    features, intercept = problems.table(len(residual), 1), problems.table(1, 1)
    features.data[:, :3] = 0
    features.data[:, 1] = residual
    batch = problems.clicks(len(residual), touched=len(residual), rows=1, entries=0, width=2, valued=False)
    box = outbox(len(residual), 1, exponent)
    rule = Rule(0, 0.0, 1.0, 0.0, 0.0, 5)
    _, sent, _ = kernel.logistic_step(features, intercept, batch, rule, 0.0, half, box, outbox(1, 1))
    return published(box, sent, (len(residual), 1), half)[:, 0], features.data[:, 1], sent[2]


class TestHalves:
    def test_rounding_is_to_nearest_even_and_saturates(self, kernel: ModuleType) -> None:
        residual = halves_of_interest()
        sent, left, largest = publish_all(kernel, residual, 0, 1)
        expected = np.clip(residual, -65504, 65504).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(sent, expected)
        np.testing.assert_array_equal(left.astype(np.float64), residual.astype(np.float64) - expected)
        assert largest == np.float32(3e38)

    @given(exponent=st.integers(-100, 100), seed=st.integers(0, 1000))
    @settings(max_examples=60)
    def test_what_is_published_and_what_is_left_add_up_exactly(
        self, native: ModuleType, exponent: int, seed: int
    ) -> None:
        random = np.random.default_rng(seed)
        size = np.exp2(random.uniform(-40, 14, 300) - exponent)
        residual = (random.choice([-1.0, 1.0], 300) * size).astype(np.float32)
        residual = residual[np.abs(residual) >= np.finfo(np.float32).tiny]
        for kernels in (native, twin):
            sent, left, _ = publish_all(kernels, residual, exponent, 1)
            assert (sent.astype(np.float64) + left == residual).all()
            assert (left[sent == 0] == residual[sent == 0]).all()

    def test_an_entry_that_rounds_to_zero_is_kept_back(self, kernel: ModuleType) -> None:
        residual = np.array([2.0**-25, -(2.0**-25), 2.0**-24, 0.0, -0.0], np.float32)
        sent, left, _ = publish_all(kernel, residual, 0, 1)
        np.testing.assert_array_equal(sent, np.array([0, 0, 2.0**-24, 0, 0], np.float32))
        np.testing.assert_array_equal(left, np.array([2.0**-25, -(2.0**-25), 0, 0, 0], np.float32))

    def test_float32_publishes_everything_and_leaves_zero(self, kernel: ModuleType) -> None:
        residual = halves_of_interest()
        sent, left, _ = publish_all(kernel, residual, 0, 0)
        np.testing.assert_array_equal(sent, residual)
        assert not left.any()


class TestThreshold:
    @given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0, 3), half=st.sampled_from([0, 1]))
    @settings(max_examples=100)
    def test_an_entry_is_published_when_it_exceeds_its_share(
        self, native: ModuleType, seed: int, threshold: float, half: int
    ) -> None:
        random = np.random.default_rng(seed)
        shared = random.choice(np.array([0.0, 0.5, -1.0, 2.0], np.float32), 64)
        edge = np.float32(threshold) * np.abs(shared)
        near = np.array([np.nextafter(edge, np.float32(9)), edge, np.nextafter(edge, np.float32(-9))])
        residual = near[random.integers(0, 3, 64), np.arange(64)] * random.choice(
            np.array([-1, 1], np.float32), 64
        )
        for kernels in (native, twin):
            problems = Problems(0)
            features, intercept = problems.table(64, 1), problems.table(1, 1)
            features.data[:, 0], features.data[:, 1], features.data[:, 2] = shared, residual, 0
            batch = problems.clicks(64, touched=64, rows=1, entries=0, width=2, valued=False)
            box = outbox(64, 1, 3)
            rule = Rule(0, 0.0, 1.0, 0.0, 0.0, 5)
            _, sent, _ = kernels.logistic_step(
                features, intercept, batch, rule, threshold, half, box, outbox(1, 1, 3)
            )
            expected = np.abs(residual) > edge
            if half:
                expected &= (residual * np.float32(8)).astype(np.float16) != 0
            np.testing.assert_array_equal(box.rows[: sent[0]], np.flatnonzero(expected))
            assert (features.data[:, 1][~expected] == residual[~expected]).all()


class TestMergedAtOnce:
    """A change that goes straight into ``shared`` is one that is published whole and merged."""

    @given(case=cases)
    @settings(max_examples=60)
    @pytest.mark.parametrize("name", ["native", "numpy"])
    def test_ratings(self, native: ModuleType, name: str, case: Case) -> None:
        kernel = native if name == "native" else twin
        problems = Problems(case.seed)
        users, items = problems.table(13, case.columns), problems.table(17, case.columns)
        batch = problems.ratings(13, 17, touched=case.touched, count=case.ratings, width=case.width)
        step = (case.columns, batch, 3.5, 0.9, case.l2, 0.5, case.rule, case.rule, 0.0)
        merged, published = [clone(users), clone(items)], [clone(users), clone(items)]
        nothing = outbox(0, case.columns)
        loss, *sent = kernel.factorization_step(*merged, *step, MERGED, MERGED, nothing, nothing)
        assert [tuple(one) for one in sent] == [(0, 0, 0.0, 1)] * 2
        boxes = [outbox(len(ids), case.columns) for ids in (batch.users, batch.items)]
        same, *sent = kernel.factorization_step(*published, *step, FLOATS, FLOATS, *boxes)
        assert same == loss
        self.compare(kernel, merged, published, boxes, sent, case.columns)

    @given(case=cases)
    @settings(max_examples=60)
    @pytest.mark.parametrize("name", ["native", "numpy"])
    def test_of_users_alone(self, native: ModuleType, name: str, case: Case) -> None:
        """What becomes of a table's changes is no matter of the other table."""
        kernel = native if name == "native" else twin
        problems = Problems(case.seed)
        users, items = problems.table(13, case.columns), problems.table(17, case.columns)
        batch = problems.ratings(13, 17, touched=case.touched, count=case.ratings, width=case.width)
        step = (case.columns, batch, 3.5, 0.9, case.l2, 0.5, case.rule, case.rule, case.threshold)
        published, owned, merged = ([clone(users), clone(items)] for _ in range(3))
        nothing, boxes, box = (
            outbox(0, case.columns),
            [outbox(len(ids), case.columns, case.exponent) for ids in (batch.users, batch.items)],
            outbox(len(batch.items), case.columns, case.exponent),
        )
        _, _, items_sent = kernel.factorization_step(*published, *step, case.half, case.half, *boxes)
        _, users_sent, sent = kernel.factorization_step(*owned, *step, MERGED, case.half, nothing, box)
        kernel.factorization_step(*merged, *step, MERGED, MERGED, nothing, nothing)
        assert tuple(users_sent) == (0, 0, 0.0, 1)
        assert tuple(sent) == tuple(items_sent)
        assert contents(box, sent, case.half) == contents(boxes[1], items_sent, case.half)
        assert owned[1].data.tobytes() == published[1].data.tobytes()
        assert owned[0].data.tobytes() == merged[0].data.tobytes()

    @given(case=cases, valued=st.booleans())
    @settings(max_examples=60)
    @pytest.mark.parametrize("name", ["native", "numpy"])
    def test_clicks(self, native: ModuleType, name: str, case: Case, valued: bool) -> None:
        kernel = native if name == "native" else twin
        problems = Problems(case.seed)
        features, intercept = problems.table(40, 1), problems.table(1, 1)
        batch = problems.clicks(
            40, touched=case.touched[0] * 3, rows=9, entries=case.ratings, width=case.width, valued=valued
        )
        merged, published = [clone(features), clone(intercept)], [clone(features), clone(intercept)]
        nothing = outbox(0, 1)
        loss, *sent = kernel.logistic_step(*merged, batch, case.rule, 0.0, MERGED, nothing, nothing)
        assert [tuple(one) for one in sent] == [(0, 0, 0.0, 1)] * 2
        boxes = [outbox(len(batch.features) + 8, 1), outbox(9, 1)]
        same, *sent = kernel.logistic_step(*published, batch, case.rule, 0.0, FLOATS, *boxes)
        assert same == loss
        self.compare(kernel, merged, published, boxes, sent, 1)

    @staticmethod
    def compare(
        kernel: ModuleType,
        merged: list[Rows],
        published: list[Rows],
        boxes: list[Outbox],
        sent: Any,
        columns: int,
    ) -> None:
        for ours, theirs, box, part in zip(merged, published, boxes, sent, strict=True):
            rows, values, *_ = part
            update = TableUpdate(box.rows[:rows], box.masks[:rows], box.values[:values])
            merge(kernel, theirs, columns, [update], np.ones(1, np.float32), False)
            for mine, other in zip(sections(ours, columns), sections(theirs, columns), strict=True):
                np.testing.assert_array_equal(mine, other)

    def test_what_is_not_finite_is_told(self, kernel: ModuleType) -> None:
        problems = Problems(1)
        features, intercept = problems.table(40, 1), problems.table(1, 1)
        batch = problems.clicks(40, touched=20, rows=9, entries=50, width=2, valued=True)
        features.data[int(batch.features[3]), 1] = np.inf
        _, sent, _ = kernel.logistic_step(
            features, intercept, batch, SMALLEST.rule, 0.0, MERGED, outbox(0, 1), outbox(0, 1)
        )
        assert not sent[3]


class TestFlush:
    """A table's whole residual, published or merged at once."""

    @given(
        seed=st.integers(0, 2**32 - 1),
        rows=st.integers(0, 20),
        columns=st.integers(1, 80),
        mode=st.sampled_from([FLOATS, HALVES, MERGED]),
        threshold=st.sampled_from([0.0, 0.3, 1.0]),
        exponent=st.integers(-5, 15),
        some=st.booleans(),
        special=st.booleans(),
    )
    @settings(max_examples=200)
    def test_compiled_and_twin_agree_bit_by_bit(
        self,
        native: ModuleType,
        seed: int,
        rows: int,
        columns: int,
        mode: int,
        threshold: float,
        exponent: int,
        some: bool,
        special: bool,
    ) -> None:
        problems = Problems(seed)
        table = problems.table(rows, columns)
        shared, residual, _ = sections(table, columns)
        residual[problems.random.random(rows) < 0.3] = -0.0
        if special:
            strange = np.array([np.inf, -np.inf, 1e-45, 3e38] + [np.nan] * (mode == FLOATS), np.float32)
            for values in (shared, residual):
                chosen = problems.random.random(values.shape) < 0.1
                values[chosen] = problems.random.choice(strange, int(chosen.sum()))
        ids = np.flatnonzero(problems.random.random(rows) < 0.5).astype(np.uint32) if some else None
        left = []
        for kernels in (native, twin):
            flushed = clone(table)
            box = outbox(0 if mode == MERGED else rows if ids is None else len(ids), columns)
            box = box._replace(exponent=exponent)
            with np.errstate(all="ignore"):
                sent = kernels.flush_table(flushed, columns, ids, threshold, mode, box)
            left.append((flushed.data.tobytes(), tuple(sent), contents(box, sent, int(mode == HALVES))))
        assert left[0] == left[1]

    def test_what_is_not_significant_and_rows_that_are_not_asked_for_stay(self, kernel: ModuleType) -> None:
        table, box = Problems(1).table(9, 3), outbox(4, 3)
        shared, residual, state = sections(table, 3)
        shared[:], residual[:] = 1.0, [0.5, 0.7, -0.9]
        before, ids = state.copy(), np.array([0, 2, 5, 8], np.uint32)
        sent = kernel.flush_table(table, 3, ids, 0.6, FLOATS, box)
        assert tuple(sent)[:2] == (4, 8)
        assert box.rows.tolist() == ids.tolist()
        assert np.array_equal(residual[ids], np.tile(np.array([0.5, 0, 0], np.float32), (4, 1)))
        assert np.array_equal(residual[1], np.array([0.5, 0.7, -0.9], np.float32))
        assert np.array_equal(state, before)

    @pytest.mark.parametrize("ids", [[3, 2], [1, 1], [9]])
    def test_rows_that_do_not_ascend_or_are_not_there_are_refused(
        self, kernel: ModuleType, ids: list[int]
    ) -> None:
        with pytest.raises(ValueError, match="rows must ascend"):
            kernel.flush_table(
                Problems(1).table(9, 11), 11, np.array(ids, np.uint32), 0.0, FLOATS, outbox(9, 11)
            )

    def test_an_outbox_is_filled_to_its_last_entry(self, kernel: ModuleType) -> None:
        table, box = Problems(1).table(9, 11), outbox(9, 11)
        residual = sections(table, 11)[1]
        residual[:] = np.arange(1, 100, dtype=np.float32).reshape(9, 11)
        assert tuple(kernel.flush_table(table, 11, None, 0.0, FLOATS, box)) == (9, 99, 99.0, 1)
        assert box.values[:99].tolist() == list(range(1, 100))
        assert box.rows.tolist() == list(range(9))
        assert not residual.any()

    def test_a_smaller_outbox_is_refused(self, native: ModuleType) -> None:
        with pytest.raises(ValueError, match="too small"):
            native.flush_table(Problems(1).table(9, 11), 11, None, 0.0, FLOATS, outbox(8, 11))
