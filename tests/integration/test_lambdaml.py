"""LambdaML's systems on real processes and servers: the bits of virtual time, and what nobody waits for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from servers.rabbitmq import Broker
from servers.redis import Server

import mlless
from mlless.baselines import lambdaml
from mlless.baselines.contract import System
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.errors import UsageError, WorkerLost
from mlless.job import JobSpec
from mlless.locations import place_of
from mlless.recipes import job_of
from mlless.records import StepRecord, Summary
from mlless.report.history import read_history
from mlless.simulation.conditions import Durations
from mlless.simulation.jobs import simulate
from mlless.stepping import Stepper
from mlless.wishes import Wishes

HERE = Deployment()
WISHES = {"workers": 3, "epochs": 2, "batch_size": 300, "seed": 5}


def run(
    name: str,
    spec: JobSpec,
    dataset: Dataset,
    out: Path,
    deployment: Deployment = HERE,
    listen=lambda record: None,
) -> Summary:
    system = lambdaml.SYSTEMS[name]
    return system.run(name, spec, dataset, place_of(out), deployment=deployment, listen=listen)


def planned(name: str, dataset: Dataset, **wishes: object) -> JobSpec:
    return lambdaml.SYSTEMS[name].plan(msgspec.convert({**WISHES, **wishes}, Wishes), dataset)


def tables(run: Path) -> dict[str, bytes]:
    return {name: table.tobytes() for name, table in mlless.load(run).artifact.tables.items()}


def test_the_family_on_redis_and_rabbitmq(
    clicks: Dataset, redis_server: Server, broker: Broker, tmp_path: Path
) -> None:
    there = Deployment(store=redis_server.url, bus=broker.url)
    for name, stepper in (
        ("scatter", Stepper),
        ("averaging", lambdaml.Averaging),
        ("admm", lambdaml.Consensus),
    ):
        spec = planned(f"lambdaml-{name}", clicks)
        summary = run(f"lambdaml-{name}", spec, clicks, tmp_path / name, there)
        virtual = simulate(spec, clicks, Durations(), stepper=stepper)
        assert tables(tmp_path / name) == {one: table.tobytes() for one, table in virtual.tables.items()}
        assert summary.heldout["log_loss"] == pytest.approx(virtual.outcome.model.heldout["log_loss"])
    summary = run("lambdaml-async", planned("lambdaml-async", clicks), clicks, tmp_path / "async", there)
    assert (summary.stop_reason, summary.system) == ("epochs", "lambdaml-async")
    with redis_server.client() as client:
        assert not client.keys("mlless-*")


def test_who_is_alone_and_waits_for_nobody_trains_as_one_worker_does(clicks: Dataset, tmp_path: Path) -> None:
    """Without L2, which otherwise pulls at every row in every step, and not when the row is next touched."""
    wishes = {**WISHES, "workers": 1, "l2": 0.0}
    spec = job_of(msgspec.convert({**wishes, "sync": "bsp"}, Wishes), clicks.manifest, clicks.address)
    run_job(spec, clicks, tmp_path / "mlless")
    run("lambdaml-async", planned("lambdaml-async", clicks, **wishes), clicks, tmp_path / "async")
    assert tables(tmp_path / "async") == tables(tmp_path / "mlless")
    losses = [[one.loss for one in read_history(place_of(tmp_path / name))] for name in ("mlless", "async")]
    assert losses[0] == losses[1]


def test_who_waits_for_nobody_trains_in_the_end(clicks: Dataset, tmp_path: Path) -> None:
    told: list[StepRecord] = []
    spec = planned("lambdaml-async", clicks, epochs=6, tariff="aws-lambda-x86")
    summary = run("lambdaml-async", spec, clicks, tmp_path / "run", listen=told.append)
    first = told[0].heldout or {}
    assert summary.heldout["log_loss"] < first["log_loss"] - 0.02
    assert sum(record.samples for record in told) == 6 * spec.rows
    assert {one.worker for one in summary.workers} == {0, 1, 2}
    assert summary.bill is not None
    found = mlless.evaluate(tmp_path / "run", clicks.location)["log_loss"]
    assert found == pytest.approx(summary.heldout["log_loss"], rel=1e-5)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.safetensors",
        "history.jsonl",
        "summary.json",
    }


FAULTY = """
import os, signal
from mlless.baselines import lambdaml
from mlless.baselines.contract import run_function

def main(payload):
    run_function(payload, work)

def work(function):
    turn = lambdaml._Free.turn

    def faulty(free, number):
        worker, generation = function.launch.me
        if worker == 1 and number == 3 and generation < int(os.environ["DEATHS"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return turn(free, number)

    lambdaml._Free.turn = faulty
    lambdaml.work(function)
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system in which so many functions of worker 1 are killed at their fourth mini-batch: DEATHS."""
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "faulty_turns.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'faults'}:{Path(mlless.__file__).parents[1]}")
    monkeypatch.setenv("DEATHS", "1")
    return replace(lambdaml.SYSTEMS["lambdaml-async"], entry="faulty_turns:main")


def test_a_killed_function_is_replaced_though_nobody_waits_for_it(
    faulty: System, clicks: Dataset, tmp_path: Path
) -> None:
    told: list[StepRecord] = []
    place, spec = place_of(tmp_path / "run"), planned("lambdaml-async", clicks)
    faulty.run("it", spec, clicks, place, deployment=HERE, listen=told.append)
    assert sum(record.samples for record in told) == spec.stop.epochs * spec.rows
    (loss,) = [loss for record in told for loss in record.losses]
    assert "worker 1 died" in loss
    assert "started anew" in loss


def test_functions_that_are_killed_again_and_again_fail_the_job(
    faulty: System, clicks: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEATHS", "99")
    place, spec = place_of(tmp_path / "run"), planned("lambdaml-async", clicks)
    with pytest.raises(WorkerLost, match="worker 1 died"):
        faulty.run("lambdaml-async", spec, clicks, place, deployment=HERE, listen=lambda record: None)
    with pytest.raises(UsageError, match=r"only a run of MLLess itself.*found a run of lambdaml-async"):
        mlless.resume(tmp_path / "run")
