"""From a data set and a user's wishes to a job."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
import pytest

from mlless.data.dataset import Dataset
from mlless.data.manifest import Clicks, Ratings
from mlless.errors import UsageError
from mlless.job import Adagrad, Factorization, JobSpec, Logistic, Nesterov, Target
from mlless.options import declared
from mlless.recipes import SIGNIFICANCE, held_out_share, job_of, parse_target, workers_of
from mlless.wishes import Wishes


def made(dataset: Dataset, **wishes: Any) -> JobSpec:
    return job_of(Wishes(**wishes), dataset.manifest, dataset.location)


def test_defaults_for_ratings(ratings: Dataset) -> None:
    spec = made(ratings, model="mf")
    shape = ratings.manifest.shape
    assert isinstance(shape, Ratings)
    assert isinstance(spec.model, Factorization)
    assert (spec.model.users, spec.model.items, spec.model.factors) == (shape.users, shape.items, 20)
    assert (spec.model.centre, spec.model.deviation) == (shape.mean, shape.deviation)
    assert (spec.model.low, spec.model.high) == (shape.low, shape.high)
    assert isinstance(spec.optimizer, Adagrad)
    assert (spec.sync.significance, spec.sync.half, spec.sync.merge) == (
        SIGNIFICANCE["mf"],
        True,
        "sqrt-members",
    )
    assert spec.fingerprint == ratings.manifest.fingerprint
    rows = sum(file.rows for file in ratings.manifest.train)
    assert (spec.groups, spec.rows, spec.held_out) == (
        len(ratings.manifest.train),
        rows,
        sum(file.rows for file in ratings.manifest.validation),
    )
    assert spec.batch_size == 64
    assert spec.batches == round(rows / 64)
    assert spec.stop.patience is not None
    assert msgspec.json.decode(msgspec.json.encode(spec), type=JobSpec) == spec


def test_defaults_for_clicks(clicks: Dataset) -> None:
    spec = made(clicks, model="lr")
    shape = clicks.manifest.shape
    assert isinstance(shape, Clicks)
    assert isinstance(spec.model, Logistic)
    assert spec.model.features == shape.table_rows
    rows = sum(file.rows for file in clicks.manifest.train)
    assert spec.model.l2 == pytest.approx(8 / rows)
    assert spec.model.intercept == pytest.approx(math.log(shape.positives / (1 - shape.positives)))
    assert (spec.sync.significance, spec.sync.half, spec.sync.merge) == (
        SIGNIFICANCE["lr"],
        True,
        "sqrt-publishers",
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_single_class_has_finite_log_odds(clicks: Dataset, share: float) -> None:
    shape = msgspec.structs.replace(clicks.manifest.shape, positives=share)
    manifest = msgspec.structs.replace(clicks.manifest, shape=shape)
    spec = job_of(Wishes(model="lr"), manifest, clicks.location)
    assert isinstance(spec.model, Logistic)
    assert math.isfinite(spec.model.intercept)
    assert (spec.model.intercept > 0) == (share == 1.0)


@pytest.mark.parametrize("model", ["mf", "lr"])
def test_nesterov_takes_the_published_scale(ratings: Dataset, clicks: Dataset, model: str) -> None:
    spec = made(ratings if model == "mf" else clicks, model=model, optimizer="nesterov")
    assert isinstance(spec.optimizer, Nesterov)
    if isinstance(spec.model, Factorization):
        assert (spec.model.deviation, spec.model.l2) == (1.0, 0.0)


def test_wishes_come_before_defaults(ratings: Dataset) -> None:
    spec = made(
        ratings,
        model="mf",
        workers=3,
        significance=0.1,
        factors=7,
        learning_rate=0.02,
        l2=0.5,
        merge="mean",
        epochs=9,
        patience=4,
        target="rmse=0.8",
        max_time=5.0,
        seed=42,
    )
    assert (spec.workers, spec.seed, spec.stop.epochs, spec.stop.patience, spec.stop.max_time) == (
        3,
        42,
        9,
        4,
        5.0,
    )
    assert isinstance(spec.model, Factorization)
    assert (spec.model.factors, spec.model.l2) == (7, 0.5)
    assert (spec.sync.significance, spec.sync.merge, spec.optimizer.learning_rate) == (0.1, "mean", 0.02)
    assert spec.stop.target == Target(metric="rmse", value=0.8)


def test_zero_is_a_wish_too(ratings: Dataset) -> None:
    spec = made(ratings, model="mf", l2=0.0)
    assert isinstance(spec.model, Factorization)
    assert spec.model.l2 == 0.0
    spec = made(ratings, model="mf", significance=0.0)
    assert (spec.sync.significance, spec.sync.half) == (0.0, False)


def test_bsp_is_a_threshold_of_zero_in_float32(ratings: Dataset) -> None:
    spec = made(ratings, model="mf", sync="bsp")
    assert (spec.sync.significance, spec.sync.half) == (0.0, False)
    with pytest.raises(UsageError, match="BSP publishes every change"):
        made(ratings, model="mf", sync="bsp", significance=0.5)


def test_users_are_owned_unless_they_are_to_be_shared(ratings: Dataset, clicks: Dataset) -> None:
    assert made(ratings, workers=2).owns_users
    assert not made(ratings, workers=2, share_users=True).owns_users
    assert not made(ratings, workers=2, optimizer="nesterov").owns_users  # as it was published
    assert not made(ratings, workers=1).owns_users
    assert not made(clicks, workers=2).owns_users
    with pytest.raises(UsageError, match="`share_users` is for ratings"):
        made(clicks, share_users=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exchange_has_a_mini_batch(ratings: Dataset, workers: int) -> None:
    with pytest.raises(UsageError, match=r"expected `local_steps` auto, or a number from 1, found .* 0"):
        made(ratings, workers=workers, local_steps=0)


def test_who_asks_for_epochs_gets_them(ratings: Dataset) -> None:
    assert made(ratings, model="mf", epochs=5).stop.patience is None
    assert made(ratings, model="mf", epochs=5, patience=2).stop.patience == 2
    assert made(ratings, model="mf").stop.patience is not None


def test_a_model_of_the_other_kind_of_data_is_refused(ratings: Dataset, clicks: Dataset) -> None:
    with pytest.raises(UsageError, match="this data set holds ratings"):
        made(ratings, model="lr")
    with pytest.raises(UsageError, match="this data set holds clicks"):
        made(clicks, model="mf")


def test_more_workers_than_groups_are_refused(ratings: Dataset) -> None:
    with pytest.raises(UsageError, match="more workers than groups of rows"):
        made(ratings, model="mf", workers=1000)


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [("rmse=0.85", "rmse", 0.85), (" auc = 0.7 ", "auc", 0.7), ("train_loss=1e-3", "train_loss", 1e-3)],
)
def test_a_target_is_a_metric_and_a_value(text: str, metric: str, value: float) -> None:
    found = parse_target(text)
    assert (found.metric, found.value) == (metric, value)


@pytest.mark.parametrize(
    "text", ["", "rmse", "rmse=", "=0.5", "speed=3", "rmse=fast", "rmse=0.5=0.6", "rmse=nan"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="target"):
        parse_target(text)


class TestFewRows:
    def test_epochs_grow_until_there_are_steps_enough(self, clicks):
        spec = job_of(Wishes(model="lr"), clicks.manifest, "", least_steps=9000)
        assert spec.stop.epochs * spec.batches >= 9000
        assert spec.stop.epochs % 20 == 0
        assert spec.stop.patience == 3 * spec.stop.epochs // 20

    def test_what_was_asked_for_stays(self, clicks):
        spec = job_of(Wishes(epochs=3, patience=2), clicks.manifest, "", least_steps=9000)
        assert (spec.stop.epochs, spec.stop.patience) == (3, 2)

    def test_without_held_out_rows_there_is_no_patience(self, clicks):
        manifest = msgspec.structs.replace(clicks.manifest, validation=())
        assert job_of(Wishes(), manifest, "", least_steps=100).stop.patience is None
        assert job_of(Wishes(), manifest, "").stop.patience == 3

    def test_some_are_held_out_from_a_number_of_rows_on(self):
        assert [held_out_share("lr", rows) for rows in (4999, 5000)] == [0.0, 0.1]
        assert [held_out_share("mf", rows) for rows in (199, 200)] == [0.0, 0.1]


@pytest.mark.parametrize("wish", ["auto", None])
def test_the_number_of_workers_is_found_if_it_is_left_open(ratings: Dataset, wish: Any) -> None:
    assert made(ratings, workers=wish).workers == workers_of(Wishes(workers=wish), ratings.manifest)
    few = msgspec.structs.replace(ratings.manifest, train=ratings.manifest.train[:2])
    assert workers_of(Wishes(workers=wish), few) <= 2
    assert workers_of(Wishes(workers=wish)) >= 1
    assert workers_of(Wishes(workers=3), few) == 3
    with pytest.raises(UsageError, match="expected at least 1, found 0"):
        workers_of(Wishes(workers=0))


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
def test_what_is_said_of_defaults_is_what_holds(kind: str, request: pytest.FixtureRequest) -> None:
    spec = made(request.getfixturevalue(kind), workers=4)
    said = {one.name: one.unless_given for one in declared(Wishes)}
    holds = {
        "learning_rate": spec.optimizer.learning_rate,
        "significance": spec.sync.significance,
        "epochs": spec.stop.epochs,
        "patience": spec.stop.patience,
        "min_workers": spec.scaling.min_workers,
    }
    if isinstance(spec.model, Factorization):
        holds |= {"factors": spec.model.factors, "l2": spec.model.l2}
    for name, value in holds.items():
        assert re.search(rf"(?<![\d.]){value:g}(?![\d.]\d)", said[name]), (name, value)
