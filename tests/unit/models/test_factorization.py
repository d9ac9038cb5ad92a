"""Matrix factorisation against a straightforward float64 reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlless.exchange.filter import SignificanceFilter
from mlless.job import Adagrad, Factorization, Nesterov, Sync
from mlless.kernels.arrays import RatingsArrays
from mlless.messages import Sums
from mlless.models import model_of
from mlless.models.base import Moment, add
from mlless.models.factorization import FactorizationModel
from mlless.models.optimizers import rule_of
from mlless.replica import Replica

USERS, ITEMS = 7, 6
Wide = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
SILENT = Sync(significance=1e30, half=False, merge="sum")


def spec(factors: int = 3, l2: float = 0.05, deviation: float = 1.3) -> Factorization:
    return Factorization(
        users=USERS, items=ITEMS, factors=factors, l2=l2, centre=3.2, deviation=deviation, low=1.0, high=5.0
    )


def triples(random: np.random.Generator, count: int) -> tuple[Wide, Wide, Wide]:
    users = np.sort(random.integers(0, USERS, count))
    items, ratings = random.integers(0, ITEMS, count), random.integers(1, 6, count)
    return users.astype(float), items.astype(float), ratings.astype(float)


def batch(users: Wide, items: Wide, ratings: Wide) -> RatingsArrays:
    distinct, starts = np.unique(users, return_index=True)
    named, local = np.unique(items, return_inverse=True)
    return RatingsArrays(
        distinct.astype(np.uint32),
        np.append(starts, len(users)).astype(np.uint32),
        named.astype(np.uint32),
        local.astype(np.uint16),
        2,
        ratings.astype(np.float32),
    )


def objective(p: Wide, q: Wide, data: tuple[Wide, Wide, Wide], model: Factorization) -> float:
    """Return the loss whose negative gradient a step follows: half of squared errors and L2 per rating."""
    users, items, ratings = (part.astype(int) if n < 2 else part for n, part in enumerate(data))
    predicted = (p[users, :-1] * q[items, :-1]).sum(axis=1) + p[users, -1] + q[items, -1]
    errors = (ratings - model.centre) / model.deviation - predicted
    pull = (p[users] ** 2).sum() + (q[items] ** 2).sum()
    return float((errors**2).sum() + model.l2 * pull) / 2


def numeric_gradient(
    p: Wide, q: Wide, data: tuple[Wide, Wide, Wide], model: Factorization
) -> tuple[Wide, Wide]:
    gradients = []
    for table in (p, q):
        gradient = np.zeros_like(table)
        for place in np.ndindex(*table.shape):
            value, h = table[place], 1e-5
            table[place] = value + h
            above = objective(p, q, data, model)
            table[place] = value - h
            below = objective(p, q, data, model)
            table[place] = value
            gradient[place] = (above - below) / (2 * h)
        gradients.append(gradient)
    return gradients[0], gradients[1]


def started(model: FactorizationModel, seed: int) -> Replica:
    """Return a replica whose parameters are all away from zero, half of them in the residual."""
    random = np.random.default_rng(seed)
    replica = Replica(model.shapes)
    replica.restore(
        {s.name: random.normal(0, 0.5, (s.rows, s.columns)).astype(np.float32) for s in model.shapes}
    )
    for table in replica.tables:
        table.residual[:] = random.normal(0, 0.2, table.residual.shape)
    return replica


def parameters(replica: Replica) -> tuple[Wide, Wide]:
    p, q = (t.shared.astype(np.float64) + t.residual for t in replica.tables)
    return p, q


def step(
    model: FactorizationModel,
    replica: Replica,
    arrays: RatingsArrays,
    optimizer: Adagrad | Nesterov,
    number: int,
) -> float:
    publisher = SignificanceFilter(SILENT, replica)
    ready = publisher.prepare(number, (len(arrays.users), len(arrays.items)))
    loss, _ = model.step(replica, arrays, optimizer, Moment(number, 0, 1), ready)
    return loss


@given(seed=st.integers(0, 10_000), factors=st.sampled_from([1, 3, 10]), l2=st.sampled_from([0.0, 0.1]))
@settings(max_examples=25)
def test_a_step_of_gradient_descent_follows_the_finite_differences(
    seed: int, factors: int, l2: float
) -> None:
    """Nesterov without momentum is plain descent along the gradient of the mean squared error."""
    chosen = spec(factors, l2)
    model = FactorizationModel(chosen)
    replica = started(model, seed)
    data = triples(np.random.default_rng(seed), 20)
    before = parameters(replica)
    expected = numeric_gradient(before[0].copy(), before[1].copy(), data, chosen)
    optimizer = Nesterov(learning_rate=0.01, momentum=0.0)
    step(model, replica, batch(*data), optimizer, 0)
    after = parameters(replica)
    moves = [(a - b) for a, b in zip(after, before, strict=True)]
    factor = SCALE * 0.01 / 20
    for move, gradient in zip(moves, expected, strict=True):
        np.testing.assert_allclose(move, -factor * gradient, rtol=2e-3, atol=2e-6)


# The gradient of the mean of squared errors is twice that of half their sum.
SCALE = 2.0


@given(seed=st.integers(0, 10_000), steps=st.integers(1, 4))
@settings(max_examples=25)
def test_adagrad_matches_a_reference_over_several_steps(seed: int, steps: int) -> None:
    chosen = spec()
    model = FactorizationModel(chosen)
    replica = started(model, seed)
    random = np.random.default_rng(seed)
    values = [table.copy() for table in parameters(replica)]
    squares = [np.zeros_like(table) for table in values]
    for number in range(steps):
        data = triples(random, 15)
        step(model, replica, batch(*data), Adagrad(learning_rate=0.1), number)
        gradients = analytic_gradient(values[0], values[1], data, chosen)
        for value, square, gradient in zip(values, squares, gradients, strict=True):
            square += gradient**2
            value -= 0.1 * np.divide(gradient, np.sqrt(square), out=np.zeros_like(square), where=square > 0)
    for got, want in zip(parameters(replica), values, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@given(seed=st.integers(0, 10_000), steps=st.integers(1, 4), momentum=st.sampled_from([0.0, 0.5, 0.9]))
@settings(max_examples=25)
def test_nesterov_matches_a_reference_over_several_steps(seed: int, steps: int, momentum: float) -> None:
    """v' = m v - rate g; x += (1 + m) v' - m v, for the rows of the batch alone."""
    chosen = spec()
    model = FactorizationModel(chosen)
    replica = started(model, seed)
    random = np.random.default_rng(seed)
    values = [table.copy() for table in parameters(replica)]
    velocities = [np.zeros_like(table) for table in values]
    for number in range(steps):
        data = triples(random, 15)
        step(model, replica, batch(*data), Nesterov(learning_rate=0.05, momentum=momentum), number)
        gradients = analytic_gradient(values[0], values[1], data, chosen)
        for value, velocity, gradient, ids in zip(values, velocities, gradients, data[:2], strict=True):
            rows = np.unique(ids).astype(int)
            after = momentum * velocity[rows] - 0.05 * SCALE * gradient[rows] / 15
            value[rows] += (1 + momentum) * after - momentum * velocity[rows]
            velocity[rows] = after
    for got, want in zip(parameters(replica), values, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


def analytic_gradient(
    p: Wide, q: Wide, data: tuple[Wide, Wide, Wide], model: Factorization
) -> tuple[Wide, Wide]:
    gp, gq = np.zeros_like(p), np.zeros_like(q)
    for user, item, rating in zip(data[0].astype(int), data[1].astype(int), data[2], strict=True):
        error = (
            (rating - model.centre) / model.deviation
            - p[user, :-1] @ q[item, :-1]
            - p[user, -1]
            - q[item, -1]
        )
        gp[user] -= error * np.append(q[item, :-1], 1.0) - model.l2 * p[user]
        gq[item] -= error * np.append(p[user, :-1], 1.0) - model.l2 * q[item]
    return gp, gq


def test_the_reference_gradient_is_that_of_the_objective() -> None:
    random = np.random.default_rng(0)
    p, q = random.normal(0, 1, (USERS, 4)), random.normal(0, 1, (ITEMS, 4))
    data = triples(random, 25)
    pairs = zip(analytic_gradient(p, q, data, spec()), numeric_gradient(p, q, data, spec()), strict=True)
    for analytic, numeric in pairs:
        np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-7)


def test_loss_is_the_squared_error_in_rating_units_before_the_step() -> None:
    chosen = spec(l2=0.1)
    model = FactorizationModel(chosen)
    replica = started(model, 3)
    users, items, ratings = triples(np.random.default_rng(3), 30)
    p, q = parameters(replica)
    u, i = users.astype(int), items.astype(int)
    predicted = (p[u, :-1] * q[i, :-1]).sum(axis=1) + p[u, -1] + q[i, -1]
    expected = ((ratings - chosen.centre - chosen.deviation * predicted) ** 2).sum()
    loss = step(model, replica, batch(users, items, ratings), Adagrad(learning_rate=0.1), 0)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_evaluation_is_of_shared_alone_and_clips_predictions() -> None:
    chosen = spec()
    model = FactorizationModel(chosen)
    replica = started(model, 3)
    replica.tables[0].shared[2] = 50.0
    users, items, ratings = triples(np.random.default_rng(3), 30)
    p, q = (t.shared.astype(np.float64) for t in replica.tables)
    u, i = users.astype(int), items.astype(int)
    scores = chosen.centre + chosen.deviation * ((p[u, :-1] * q[i, :-1]).sum(axis=1) + p[u, -1] + q[i, -1])
    expected = ((ratings - np.clip(scores, 1.0, 5.0)) ** 2).sum()
    sums = model.evaluate(replica, batch(users, items, ratings))
    assert sums.samples == 30
    assert sums.loss == pytest.approx(expected, rel=1e-5)
    assert model.metrics(sums) == {"rmse": math.sqrt(sums.loss / 30)}
    assert model.metrics(Sums(0, 0.0)) == {}


def test_sums_of_slices_add_up() -> None:
    assert add(Sums(2, 1.5, (1, 2), (3, 4)), Sums(3, 0.5, (10, 20), (30, 40))) == Sums(
        5, 2.0, (11, 22), (33, 44)
    )


def test_settle_has_nothing_to_do() -> None:
    model = FactorizationModel(spec())
    replica = started(model, 1)
    before = [table.rows.data.tobytes() for table in replica.tables]
    assert not model.settle(replica, Adagrad(learning_rate=0.1), Moment(10, 0, 1), 9)
    assert [table.rows.data.tobytes() for table in replica.tables] == before


def test_the_start_is_normal_factors_and_zero_biases_and_depends_on_the_seed_alone() -> None:
    big = Factorization(
        users=400, items=300, factors=20, l2=0.0, centre=3.0, deviation=1.0, low=1.0, high=5.0
    )
    model = model_of(big)
    start = model.initial(np.random.default_rng(1))
    again = model.initial(np.random.default_rng(1))
    other = model.initial(np.random.default_rng(2))
    assert list(start) == ["users", "items"]
    for name, array in start.items():
        assert array.dtype == np.float32
        assert not array[:, -1].any()
        assert abs(array[:, :-1].std() - 0.1) < 0.005
        assert abs(array[:, :-1].mean()) < 0.005
        assert array.tobytes() == again[name].tobytes() != other[name].tobytes()


def test_the_rate_fades_by_epochs_and_warms_up_by_steps() -> None:
    optimizer = Adagrad(learning_rate=0.2, damping=8.0, fading=0.5, warmup=True)
    assert rule_of(optimizer, Moment(9, 2, 16), damping=0.25, decay=0.5) == (0, 0.05, 2.0, 0.0, 0.5, 9)
    assert rule_of(optimizer, Moment(0, 0, 16), damping=0.25).rate == pytest.approx(0.2 / 4)
    assert rule_of(optimizer, Moment(2, 0, 16), damping=0.25).rate == pytest.approx(0.2 * 3 / 4)
    assert rule_of(optimizer, Moment(0, 0, 1), damping=0.25).rate == 0.2
    nesterov = Nesterov(learning_rate=0.2, momentum=0.7)
    assert rule_of(nesterov, Moment(3, 5, 16), damping=1.0) == (1, 0.2, 0.0, 0.7, 0.0, 3)


def test_damping_is_divided_by_the_root_of_the_members() -> None:
    """The first step of an entry is rate * g / (|g| + damping / sqrt(members))."""
    model = FactorizationModel(spec(l2=0.0))
    arrays, changes = batch(*triples(np.random.default_rng(3), 20)), {}
    for members in (1, 4):
        replica = started(model, 3)
        replica.restore(replica.snapshot())
        ready = SignificanceFilter(SILENT, replica).prepare(0, (len(arrays.users), len(arrays.items)))
        optimizer = Adagrad(learning_rate=0.5, damping=3.0)
        model.step(replica, arrays, optimizer, Moment(0, 0, members), ready)
        changes[members] = replica.tables[1].residual.astype(np.float64)
    gradient = changes[1] * 3.0 / (0.5 - np.abs(changes[1]))  # from |u| = .5 |g| / (|g| + 3)
    np.testing.assert_allclose(changes[4], 0.5 * gradient / (np.abs(gradient) + 1.5), rtol=1e-3, atol=1e-6)
