"""Logistic regression against a straightforward float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlless.exchange.filter import SignificanceFilter
from mlless.job import Adagrad, Logistic, Nesterov, Sync
from mlless.kernels.arrays import ClicksArrays
from mlless.messages import Sums
from mlless.models import model_of
from mlless.models.base import Moment, add
from mlless.models.logistic import BINS, LogisticModel, area_under_curve, probabilities
from mlless.models.optimizers import rule_of, settle_decay
from mlless.replica import Replica, Table, TableShape

FEATURES = 12
Wide = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
SILENT = Sync(significance=1e30, half=False, merge="sum")
BSP = Sync(significance=0.0, half=False, merge="sum")


class Sample:
    """A mini-batch as a dense matrix and as the kernels take it; some features and rows are empty."""

    def __init__(self, random: np.random.Generator, rows: int, *, valued: bool = True) -> None:
        present = random.random((rows, FEATURES)) < 0.4
        present[:, random.integers(0, FEATURES, 3)] = False
        self.matrix = np.where(present, random.normal(0, 1, present.shape) if valued else 1.0, 0.0)
        self.matrix = self.matrix.astype(np.float32).astype(np.float64)
        self.labels = random.integers(0, 2, rows).astype(np.float64)
        _, columns = np.nonzero(present)
        features, local = np.unique(columns, return_inverse=True)
        self.touched = features
        self.arrays = ClicksArrays(
            self.labels.astype(np.uint8),
            np.append(0, np.cumsum(present.sum(axis=1))).astype(np.uint32),
            features.astype(np.uint32),
            local.astype(np.uint16),
            2,
            self.matrix[present].astype(np.float32) if valued else None,
        )

    def loss(self, weights: Wide, intercept: float) -> float:
        margins = self.matrix @ weights + intercept
        return float(np.logaddexp(0, np.where(self.labels > 0, -margins, margins)).sum())

    def gradient(self, weights: Wide, intercept: float) -> tuple[Wide, float]:
        """Return the gradient of the mean log loss."""
        errors = 1 / (1 + np.exp(-(self.matrix @ weights + intercept))) - self.labels
        return self.matrix.T @ errors / len(errors), float(errors.mean())


def started(model: LogisticModel, seed: int) -> Replica:
    random = np.random.default_rng(seed)
    replica = Replica(model.shapes)
    replica.restore({s.name: random.normal(0, 0.5, (s.rows, 1)).astype(np.float32) for s in model.shapes})
    for table in replica.tables:
        table.residual[:] = random.normal(0, 0.2, table.residual.shape)
    return replica


def parameters(replica: Replica) -> tuple[Wide, float]:
    weights, intercept = (t.shared.astype(np.float64) + t.residual for t in replica.tables)
    return weights[:, 0], float(intercept[0, 0])


def step(
    model: LogisticModel,
    replica: Replica,
    arrays: ClicksArrays,
    optimizer: Adagrad | Nesterov,
    number: int,
    sync: Sync = SILENT,
) -> float:
    publisher = SignificanceFilter(sync, replica)
    ready = publisher.prepare(number, (len(arrays.features), 1))
    loss, _ = model.step(replica, arrays, optimizer, Moment(number, 0, 1), ready)
    return loss


@given(seed=st.integers(0, 10_000), valued=st.booleans())
@settings(max_examples=40)
def test_loss_and_step_of_gradient_descent_match_the_dense_reference(seed: int, valued: bool) -> None:
    model = LogisticModel(Logistic(features=FEATURES, l2=0.0, intercept=0.0))
    replica = started(model, seed)
    sample = Sample(np.random.default_rng(seed), 15, valued=valued)
    weights, intercept = parameters(replica)
    loss = step(model, replica, sample.arrays, Nesterov(learning_rate=0.5, momentum=0.0), 0)
    assert loss == pytest.approx(sample.loss(weights, intercept), rel=1e-5)
    gradient, slope = sample.gradient(weights, intercept)
    after = parameters(replica)
    np.testing.assert_allclose(after[0] - weights, -0.5 * gradient, rtol=1e-3, atol=1e-6)
    assert after[1] - intercept == pytest.approx(-0.5 * slope, rel=1e-3, abs=1e-6)


def test_the_reference_gradient_is_that_of_the_loss() -> None:
    random = np.random.default_rng(0)
    sample, weights, h = Sample(random, 20), random.normal(0, 1, FEATURES), 1e-6
    gradient, slope = sample.gradient(weights, 0.3)
    for j in range(FEATURES):
        nudge = np.eye(FEATURES)[j] * h
        numeric = (sample.loss(weights + nudge, 0.3) - sample.loss(weights - nudge, 0.3)) / (2 * h * 20)
        assert gradient[j] == pytest.approx(numeric, rel=1e-5, abs=1e-8)
    assert slope == pytest.approx(
        (sample.loss(weights, 0.3 + h) - sample.loss(weights, 0.3 - h)) / (2 * h * 20), rel=1e-5
    )


class Reference:
    """Adagrad or Nesterov with proximal L2 of the steps a weight was passed by, in float64."""

    def __init__(self, weights: Wide, l2: float, optimizer: Adagrad | Nesterov) -> None:
        self.weights, self.l2, self.optimizer = weights.copy(), l2, optimizer
        self.state = np.zeros_like(weights)
        self.last = np.full(len(weights), -1)

    def step(self, gradient: Wide, touched: Wide, number: int, samples: int) -> None:
        for j in touched.astype(int):
            g, rate = -gradient[j], self.optimizer.learning_rate
            if isinstance(self.optimizer, Adagrad):
                self.state[j] += g * g
                root = np.sqrt(self.state[j]) + self.optimizer.damping / samples
                eta = rate / root if root else 0.0
                change = eta * g
            else:
                eta, m, before = rate, self.optimizer.momentum, self.state[j]
                self.state[j] = m * before + rate * g
                change = (1 + m) * self.state[j] - m * before
            missed = number - self.last[j]
            self.weights[j] = (self.weights[j] + change) / (1 + eta * self.l2 * missed)
            self.last[j] = number


optimizers = st.sampled_from(
    [
        Adagrad(learning_rate=0.2, damping=3.0),
        Adagrad(learning_rate=0.2),
        Nesterov(learning_rate=0.3, momentum=0.6),
    ]
)


@given(seed=st.integers(0, 10_000), optimizer=optimizers, l2=st.sampled_from([0.0, 0.1]))
@settings(max_examples=60)
def test_steps_match_the_reference_missed_decay_included(
    seed: int, optimizer: Adagrad | Nesterov, l2: float
) -> None:
    model = LogisticModel(Logistic(features=FEATURES, l2=l2, intercept=0.0))
    replica = started(model, seed)
    random = np.random.default_rng(seed)
    weights, intercept = parameters(replica)
    reference, free = Reference(weights, l2, optimizer), Reference(np.array([intercept]), 0.0, optimizer)
    for number in (0, 1, 4, 5, 11):  # steps this worker does not take still decay what they pass by
        sample = Sample(random, 9)
        gradient, slope = sample.gradient(reference.weights, float(free.weights[0]))
        step(model, replica, sample.arrays, optimizer, number)
        reference.step(gradient, sample.touched.astype(float), number, 9)
        free.step(np.array([slope]), np.zeros(1), number, 9)
    got = parameters(replica)
    np.testing.assert_allclose(got[0], reference.weights, rtol=2e-3, atol=2e-5)
    assert got[1] == pytest.approx(free.weights[0], rel=2e-3, abs=2e-5)


class TestSettle:
    @given(seed=st.integers(0, 10_000), optimizer=optimizers)
    @settings(max_examples=40)
    def test_it_applies_what_each_row_has_missed_and_only_once(
        self, seed: int, optimizer: Adagrad | Nesterov
    ) -> None:
        l2 = 0.1
        model = LogisticModel(Logistic(features=FEATURES, l2=l2, intercept=0.0))
        replica = started(model, seed)
        step(model, replica, Sample(np.random.default_rng(seed), 9).arrays, optimizer, 3)
        table, intercept = replica.tables
        weights, free = parameters(replica)
        shared, state = table.shared.copy(), table.state.copy()
        missed = 10.0 - table.last
        assert model.settle(replica, optimizer, Moment(10, 0, 16), 8)
        if isinstance(optimizer, Adagrad):
            root = np.sqrt(state[:, 0].astype(np.float64)) + optimizer.damping * 2 / 8
            eta = np.divide(0.2, root, out=np.zeros_like(root), where=root > 0)
        else:
            eta = np.full(FEATURES, optimizer.learning_rate)
        after = parameters(replica)
        np.testing.assert_allclose(after[0], weights / (1 + eta * l2 * missed), rtol=1e-4, atol=1e-6)
        assert after[1] == free
        assert (table.last == 10).all()
        assert table.shared.tobytes() == shared.tobytes(), "only a merge writes shared"
        assert table.state.tobytes() == state.tobytes()
        before = table.residual.copy()
        model.settle(replica, optimizer, Moment(10, 0, 16), 8)
        np.testing.assert_allclose(table.residual, before, atol=1e-6)
        del intercept

    def test_without_l2_nothing_moves(self) -> None:
        model = LogisticModel(Logistic(features=FEATURES, l2=0.0, intercept=0.0))
        replica = started(model, 1)
        before = replica.tables[0].rows.data.tobytes()
        assert not model.settle(replica, Adagrad(learning_rate=0.1), Moment(5, 0, 1), 1)
        assert replica.tables[0].rows.data.tobytes() == before

    @pytest.mark.parametrize("kind", [0, 1])
    def test_it_is_what_a_zero_gradient_does_to_every_row(self, kind: int) -> None:
        """Settling equals a step of zero gradient, for rows whose momentum is spent."""
        random = np.random.default_rng(5)
        model = LogisticModel(Logistic(features=FEATURES, l2=0.2, intercept=0.0))
        optimizer = (
            Nesterov(learning_rate=0.3, momentum=0.0) if kind else Adagrad(learning_rate=0.3, damping=2.0)
        )
        settled, stepped = started(model, 5), started(model, 5)
        for replica in (settled, stepped):
            replica.tables[0].state[:] = 0 if kind else 0.5
            replica.tables[0].last[:] = (
                random.integers(0, 4, FEATURES) if replica is settled else settled.tables[0].last
            )
        nothing = ClicksArrays(
            np.ones(1, np.uint8),
            np.zeros(2, np.uint32),
            np.arange(FEATURES, dtype=np.uint32),
            np.zeros(0, np.uint16),
            2,
            None,
        )
        step(model, stepped, nothing, optimizer, 6)
        model.settle(settled, optimizer, Moment(6, 0, 1), 1)
        assert settled.tables[0].residual.tobytes() == stepped.tables[0].residual.tobytes()

    def test_columns_settle_row_by_row(self) -> None:
        table = Table.zeros(TableShape("wide", 3, 2))
        table.shared[:] = 1
        table.last[:] = [0, 4, 9]
        settle_decay(table, rule_of(Nesterov(learning_rate=1.0), Moment(9, 0, 1), damping=1.0, decay=1.0))
        np.testing.assert_allclose(
            table.shared + table.residual, np.array([[0.1] * 2, [1 / 6] * 2, [1.0] * 2]), rtol=1e-6
        )


def test_bsp_with_decay_leaves_no_residual() -> None:
    model = LogisticModel(Logistic(features=FEATURES, l2=0.1, intercept=0.0))
    replica = started(model, 1)
    for table in replica.tables:
        table.residual[:] = 0
    step(model, replica, Sample(np.random.default_rng(1), 9).arrays, Adagrad(learning_rate=0.1), 0, BSP)
    assert not any(table.residual.any() for table in replica.tables)


def test_the_start_is_zero_weights_and_the_log_odds() -> None:
    start = model_of(Logistic(features=5, l2=0.1, intercept=-1.5)).initial(np.random.default_rng(0))
    assert not start["features"].any()
    assert start["features"].shape == (5, 1)
    assert start["intercept"].tolist() == [[-1.5]]


class TestEvaluation:
    def test_it_is_of_shared_alone(self) -> None:
        model = LogisticModel(Logistic(features=FEATURES, l2=0.0, intercept=0.0))
        replica = started(model, 4)
        sample = Sample(np.random.default_rng(4), 50)
        shared, bias = (
            replica.tables[0].shared[:, 0].astype(np.float64),
            float(replica.tables[1].shared[0, 0]),
        )
        sums, margins = model.evaluate(replica, sample.arrays), sample.matrix @ shared + bias
        assert sums.samples == 50
        assert sums.loss == pytest.approx(sample.loss(shared, bias), rel=1e-5)
        assert (sum(sums.positives), sum(sums.negatives)) == (sample.labels.sum(), 50 - sample.labels.sum())
        metrics = model.metrics(sums)
        assert metrics["log_loss"] == sums.loss / 50
        assert metrics["auc"] == pytest.approx(area_by_pairs(sample.labels > 0, margins), abs=0.01)
        assert list(metrics) == ["log_loss", "auc"]

    def test_the_histograms_auc_is_that_of_all_pairs(self) -> None:
        model, random = (
            LogisticModel(Logistic(features=20_000, l2=0.0, intercept=0.0)),
            np.random.default_rng(1),
        )
        replica = Replica(model.shapes)
        margins = random.normal(-1.5, 1.0, 20_000).astype(np.float32)
        replica.tables[0].shared[:, 0] = margins
        clicked = random.random(20_000) < 1 / (1 + np.exp(-margins))
        rows = np.arange(20_000, dtype=np.uint32)
        batch = ClicksArrays(
            clicked.astype(np.uint8), np.append(rows, 20_000).astype(np.uint32), rows, rows, 4, None
        )
        auc = model.metrics(model.evaluate(replica, batch))["auc"]
        assert auc == pytest.approx(area_under_curve(clicked, margins), abs=1e-5)

    def test_slices_add_up_to_the_whole(self) -> None:
        model = LogisticModel(Logistic(features=FEATURES, l2=0.0, intercept=0.0))
        replica = started(model, 4)
        parts = [model.evaluate(replica, Sample(np.random.default_rng(n), 30).arrays) for n in range(3)]
        total = add(add(parts[0], parts[1]), parts[2])
        assert total.samples == 90
        assert sum(total.positives) + sum(total.negatives) == 90
        assert model.metrics(total)["log_loss"] == pytest.approx(sum(part.loss for part in parts) / 90)

    def test_extreme_margins_fall_into_the_outer_bins(self) -> None:
        model = LogisticModel(Logistic(features=1, l2=0.0, intercept=0.0))
        replica = Replica(model.shapes)
        one, zero = np.ones(1, np.uint8), np.zeros(2, np.uint32)
        arrays = ClicksArrays(one, zero, zero[:0], np.zeros(0, np.uint16), 2, None)
        for bias, place in ((1e30, BINS - 1), (-1e30, 0), (0.0, BINS // 2)):
            replica.tables[1].shared[0, 0] = bias
            assert model.evaluate(replica, arrays).positives[place] == 1

    def test_nothing_held_out_is_no_metric(self) -> None:
        model = LogisticModel(Logistic(features=1, l2=0.0, intercept=0.0))
        assert model.metrics(Sums(0, 0.0)) == {}

    def test_scores_within_a_bin_are_ties(self) -> None:
        model = LogisticModel(Logistic(features=1, l2=0.0, intercept=0.0))
        rest = (0,) * (BINS - 2)
        assert model.metrics(Sums(6, 1.0, (2, 0, *rest), (4, 0, *rest)))["auc"] == 0.5
        # Of 2 x 4 pairs 2 x 3 are in order and 2 x 1 are ties.
        assert model.metrics(Sums(6, 1.0, (2, 0, *rest), (1, 3, *rest)))["auc"] == 7 / 8

    def test_one_class_alone_has_an_auc_of_one_half(self) -> None:
        model = LogisticModel(Logistic(features=1, l2=0.0, intercept=0.0))
        sums = Sums(3, 1.0, (0,) * BINS, (3,) + (0,) * (BINS - 1))
        assert model.metrics(sums)["auc"] == 0.5
        assert area_under_curve(np.ones(3, bool), np.arange(3, dtype=np.float32)) == 0.5
        assert area_under_curve(np.zeros(3, bool), np.arange(3, dtype=np.float32)) == 0.5


def area_by_pairs(
    clicked: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    scores: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> float:
    difference = scores[clicked][:, None].astype(float) - scores[~clicked][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


@given(
    scores=st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 3.0]), min_size=2, max_size=40),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150)
def test_area_under_the_curve_counts_pairs_in_order_and_ties_half(scores: list[float], seed: int) -> None:
    clicked = np.random.default_rng(seed).random(len(scores)) < 0.4
    clicked[:2] = (True, False)
    array = np.array(scores, np.float32)
    assert area_under_curve(clicked, array) == pytest.approx(area_by_pairs(clicked, array))


@pytest.mark.filterwarnings("error")
def test_probabilities_neither_overflow_nor_leave_the_unit_interval() -> None:
    margins = np.array([-1e300, -800.0, -30.0, 0.0, 30.0, 800.0, 1e300])
    found = probabilities(margins)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found[2:5], 1 / (1 + np.exp(-margins[2:5])), rtol=1e-12)
