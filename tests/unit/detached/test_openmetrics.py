"""OpenMetrics of a run, read back by Prometheus' own parsers of both formats."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.detached.openmetrics import exposition
from mlless.detached.status import Status
from mlless.driver import plan_job, run_job
from mlless.wishes import Wishes

prometheus = pytest.importorskip("prometheus_client", reason="pip install prometheus-client")

from prometheus_client import parser as older  # noqa: E402
from prometheus_client.openmetrics import parser as newer  # noqa: E402

STATUS = Status(
    run="runs/it",
    state="running",
    step=7,
    epoch=0.5,
    epochs=3,
    heldout={"log_loss": 0.5, "auc": 0.75},
    best={},
    model_step=0,
    workers=4,
    seconds=1.25,
    cost=None,
    train_loss=0.75,
    bytes_published=1 << 40,
    lost=1,
)


def samples(text, parser):
    families = parser.text_string_to_metric_families(text)
    return {
        (one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples
    }


@pytest.mark.parametrize("parser", [older, newer])
def test_both_formats_have_the_same_values(parser):
    run = ("run", "runs/it")
    found = samples(exposition(STATUS), parser)
    assert found[("mlless_step", run)] == 7
    assert found[("mlless_heldout", ("metric", "auc"), run)] == 0.75
    assert found[("mlless_state", run, ("state", "running"))] == 1
    assert sum(value for (name, *_), value in found.items() if name == "mlless_state") == 1
    assert found[("mlless_published_bytes_total", run)] == 1 << 40
    assert found[("mlless_lost_functions_total", run)] == 1
    assert not [name for name, *_ in found if name in ("mlless_cost_dollars", "mlless_model")]


@given(run=st.text(), value=st.floats(allow_nan=False))
def test_any_name_and_value_comes_back(run, value):
    status = Status(
        run=run, state="lost", step=None, epoch=0.0, epochs=0, heldout={"rmse": value}, best={}, model_step=0,
        workers=0, seconds=0.0, cost=0.5,
    )  # fmt: skip
    found = samples(exposition(status), newer)
    assert found[("mlless_heldout", ("metric", "rmse"), ("run", run))] == value
    assert found[("mlless_cost_dollars", ("run", run))] == 0.5


def test_a_run_that_is_over(ratings, run_folder):
    from mlless.detached.status import status

    run = run_job(plan_job(Wishes(epochs=1), ratings), ratings, run_folder)
    found = samples(exposition(status(run_folder)), newer)
    where = ("run", str(run_folder))
    assert found[("mlless_state", where, ("state", "finished"))] == 1
    assert found[("mlless_model", ("metric", "rmse"), where)] == run.summary.heldout["rmse"]
    assert found[("mlless_fetched_bytes_total", where)] == run.summary.bytes_fetched
    assert all(math.isfinite(value) for value in found.values())
