"""JobSpec: a validated value that serialises to JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlless.errors import UsageError
from mlless.job import (
    Adagrad,
    Deadlines,
    Factorization,
    JobSpec,
    Logistic,
    MergeRule,
    Nesterov,
    Stop,
    Sync,
    Target,
)

MF = Factorization(users=10, items=20, factors=5, l2=0.1, centre=3.5, deviation=1.1, low=1.0, high=5.0)
LR = Logistic(features=100, l2=1e-6, intercept=-1.0)


def job(
    model: Factorization | Logistic = MF,
    *,
    optimizer: Adagrad | Nesterov | None = None,
    target: Target | None = None,
    workers: int = 4,
    groups: int = 10,
    held_out: int = 20,
    batch_size: int = 10,
    seed: int = 0,
) -> JobSpec:
    return JobSpec(
        dataset="data",
        fingerprint="ab",
        groups=groups,
        rows=100,
        held_out=held_out,
        batch_size=batch_size,
        model=model,
        optimizer=optimizer or Adagrad(learning_rate=0.1),
        sync=Sync(significance=0.7, half=True, merge="mean"),
        stop=Stop(epochs=3, target=target, patience=2, max_time=60.0),
        workers=workers,
        seed=seed,
    )


positive = st.floats(1e-9, 1e9)
rules: tuple[MergeRule, ...] = ("sum", "mean", "sqrt-members", "sqrt-publishers")
jobs = st.builds(
    JobSpec,
    dataset=st.text(),
    fingerprint=st.text(),
    groups=st.integers(64, 2**40),
    rows=st.integers(0, 2**40),
    held_out=st.integers(0, 99),
    batch_size=st.integers(1, 2**32 - 1),
    model=st.builds(
        Factorization,
        users=st.integers(1, 2**32),
        items=st.integers(1, 2**32),
        factors=st.integers(1, 255),
        l2=positive,
        centre=positive,
        deviation=positive,
        low=st.floats(-10, 0),
        high=positive,
    )
    | st.builds(Logistic, features=st.integers(1, 2**32), l2=positive, intercept=st.floats(-50, 50)),
    optimizer=st.builds(Adagrad, learning_rate=positive, damping=positive)
    | st.builds(Nesterov, learning_rate=positive, momentum=st.floats(0, 0.99)),
    sync=st.builds(Sync, significance=positive, half=st.booleans(), merge=st.sampled_from(rules)),
    stop=st.builds(
        Stop,
        epochs=st.integers(1, 999),
        patience=st.none() | st.integers(1, 99),
        max_time=st.none() | positive,
    ),
    workers=st.integers(1, 64),
    seed=st.integers(0, 2**63 - 1),
    deadlines=st.builds(
        lambda start, step: Deadlines(start=start, step=step, commit=2 * (start + step)), positive, positive
    ),
)


@given(spec=jobs)
@settings(max_examples=150)
def test_a_job_survives_json(spec: JobSpec) -> None:
    assert msgspec.json.decode(msgspec.json.encode(spec), type=JobSpec) == spec


def test_a_job_names_what_it_holds_in_json() -> None:
    found = json.loads(msgspec.json.encode(job()))
    assert found["model"]["kind"] == "mf"
    assert found["optimizer"] == {
        "kind": "adagrad",
        "learning_rate": 0.1,
        "damping": 0.0,
        "fading": 1.0,
        "warmup": False,
    }
    assert json.loads(msgspec.json.encode(job(LR)))["model"]["kind"] == "lr"


@pytest.mark.parametrize("place", [(), ("model",), ("optimizer",), ("sync",), ("stop",), ("deadlines",)])
def test_unknown_fields_are_refused(place: tuple[str, ...]) -> None:
    whole = json.loads(msgspec.json.encode(job()))
    part = whole
    for name in place:
        part = part[name]
    part["surprise"] = 1
    with pytest.raises(msgspec.ValidationError, match="surprise"):
        msgspec.json.decode(json.dumps(whole).encode(), type=JobSpec)


@pytest.mark.parametrize(
    "field", ["dataset", "fingerprint", "groups", "model", "optimizer", "sync", "stop", "workers", "seed"]
)
def test_nothing_may_be_missing(field: str) -> None:
    whole = json.loads(msgspec.json.encode(job()))
    del whole[field]
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(json.dumps(whole).encode(), type=JobSpec)


def test_values_are_checked_when_they_come_as_json_too() -> None:
    whole = json.loads(msgspec.json.encode(job()))
    whole["workers"] = 11
    with pytest.raises(UsageError, match="more workers than groups of rows"):
        msgspec.json.decode(json.dumps(whole).encode(), type=JobSpec)
    whole["workers"] = 4
    whole["optimizer"]["learning_rate"] = -1
    with pytest.raises(UsageError, match="learning rate"):
        msgspec.json.decode(json.dumps(whole).encode(), type=JobSpec)


INVALID: dict[str, Callable[[], object]] = {
    "number of factors: expected 1 to 255, found 0": lambda: msgspec.structs.replace(MF, factors=0),
    "number of factors: expected 1 to 255, found 256": lambda: msgspec.structs.replace(MF, factors=256),
    "L2 strength: expected a number from 0, found -0.1": lambda: msgspec.structs.replace(MF, l2=-0.1),
    "L2 strength: expected a number from 0, found nan": lambda: msgspec.structs.replace(LR, l2=float("nan")),
    "L2 strength: expected a number from 0, found inf": lambda: msgspec.structs.replace(LR, l2=float("inf")),
    "learning rate: expected a number above 0, found 0": lambda: Adagrad(learning_rate=0),
    "learning rate: expected a number above 0, found nan": lambda: Nesterov(learning_rate=float("nan")),
    "momentum: expected a number from 0 to below 1, found 1.0": lambda: Nesterov(
        learning_rate=1, momentum=1.0
    ),
    "momentum: expected a number from 0 to below 1, found -0.1": lambda: Nesterov(
        learning_rate=1, momentum=-0.1
    ),
    "significance threshold: expected a number from 0, found -1": lambda: Sync(
        significance=-1, half=True, merge="sum"
    ),
    "precision: expected float32 with BSP, found float16": lambda: Sync(
        significance=0, half=True, merge="sum"
    ),
    "target: expected a finite number, found nan": lambda: Target(metric="rmse", value=float("nan")),
    "epochs: expected at least 1, found 0": lambda: Stop(epochs=0),
    "patience: expected at least 1, found 0": lambda: Stop(epochs=1, patience=0),
    "maximum time: expected seconds above 0, found 0": lambda: Stop(epochs=1, max_time=0),
    "number of workers: expected at least 1, found 0": lambda: job(workers=0),
    "seed: expected a whole number from 0, found -1": lambda: job(seed=-1),
    "more workers than groups of rows: expected `workers` up to 3 for this data set": lambda: job(groups=3),
}


@pytest.mark.parametrize("what", INVALID)
def test_an_invalid_value_is_named_with_what_was_expected(what: str) -> None:
    with pytest.raises(UsageError) as caught:
        INVALID[what]()
    assert str(caught.value).startswith(what)


def test_a_target_must_be_a_metric_of_the_model() -> None:
    job(MF, target=Target(metric="rmse", value=0.9))
    job(LR, target=Target(metric="auc", value=0.7))
    job(LR, target=Target(metric="train_loss", value=0.7), held_out=0)
    with pytest.raises(UsageError, match="one of rmse, train_loss"):
        job(MF, target=Target(metric="auc", value=0.7))
    with pytest.raises(UsageError, match="one of auc, log_loss, train_loss"):
        job(LR, target=Target(metric="rmse", value=0.7))
    with pytest.raises(UsageError, match="one of train_loss"):
        job(LR, target=Target(metric="auc", value=0.7), held_out=0)


def test_the_metric_that_picks_the_best_model_comes_first() -> None:
    assert job(MF).metrics == ("rmse",)
    assert job(LR).metrics == ("log_loss", "auc")
