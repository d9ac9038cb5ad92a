"""Cirrus on real processes: one worker against a single process, several, and what is lost of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from integration.jobs import eventually

import mlless
from mlless.baselines import cirrus
from mlless.baselines.contract import System
from mlless.baselines.parameter_process import Serving, open_server
from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.errors import JobError, UsageError, WorkerFailed
from mlless.job import Deadlines, JobSpec
from mlless.locations import Location, place_of
from mlless.records import StepRecord, Summary
from mlless.report.history import read_summary
from mlless.runtimes.strays import tagged
from mlless.wishes import Wishes

CIRRUS = cirrus.SYSTEMS["cirrus"]
ALL = type(CIRRUS)(about="", wishes=CIRRUS.wishes, entry=CIRRUS.entry, lead=partial(cirrus.lead, least=0.0))


def planned(dataset: Dataset, **wishes: object) -> JobSpec:
    """Return a job of two epochs of 45 mini-batches, unless ``wishes`` say otherwise."""
    rows = sum(file.rows for file in dataset.manifest.train)
    wishes = {"workers": 3, "epochs": 2, "batch_size": rows // 45, "seed": 5, **wishes}
    return CIRRUS.plan(msgspec.convert(wishes, Wishes), dataset)


def run(
    system: System,
    spec: JobSpec,
    dataset: Dataset,
    out: Location,
    listen: Callable[[StepRecord], object] = lambda record: None,
) -> tuple[Summary, list[StepRecord]]:
    told: list[StepRecord] = []

    def hear(record: StepRecord) -> object:
        told.append(record)
        return listen(record)

    summary = system.run("cirrus", spec, dataset, place_of(out), deployment=Deployment(), listen=hear)
    return summary, told


def tables(run: Location) -> dict[str, np.ndarray]:
    return dict(mlless.load(run).artifact.tables)


@pytest.mark.parametrize(
    ("kind", "wishes"), [("ratings", {}), ("ratings", {"optimizer": "nesterov"}), ("clicks", {})]
)
def test_one_worker_takes_the_steps_of_a_single_process(
    kind: str, wishes: dict[str, object], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    spec = planned(dataset, workers=1, **wishes)
    _, told = run(ALL, spec, dataset, tmp_path / "all")
    own: list[StepRecord] = []
    run_job(spec, dataset, tmp_path / "alone", listen=own.append)
    expected, found = tables(tmp_path / "alone"), tables(tmp_path / "all")
    assert {n: t.tobytes() for n, t in found.items()} == {n: t.tobytes() for n, t in expected.items()}
    assert [(one.loss, one.heldout) for one in told] == [(one.loss, one.heldout) for one in own]

    _, fewer = run(CIRRUS, spec, dataset, tmp_path / "published")
    entries, all_entries = (sum(one.entries for one in of) for of in (fewer, told))
    assert entries < all_entries if kind == "ratings" else entries == all_entries  # none is so small there
    # Each entry that is dropped moves its parameter by less than the rate times 1e-5.
    for name, table in tables(tmp_path / "published").items():
        assert np.abs(table - expected[name]).max() < 1e-3


def test_several_workers_use_every_row_once_an_epoch(clicks: Dataset, tmp_path: Path) -> None:
    spec = planned(clicks, epochs=3, tariff="published-ibm")
    summary, told = run(CIRRUS, spec, clicks, tmp_path / "run")
    assert sum(one.samples for one in told) == 3 * spec.rows
    assert [one.step for one in told] == list(range(3 * 15 + 2))
    first, last = told[0].heldout, summary.heldout
    assert first is not None
    assert last["log_loss"] < first["log_loss"] - 0.02
    found = mlless.evaluate(tmp_path / "run", clicks.location)
    assert found["log_loss"] == pytest.approx(last["log_loss"], rel=1e-5)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.safetensors", "history.jsonl", "summary.json",
    }  # fmt: skip
    assert summary.bill is not None
    (server,) = [one for one in summary.bill.items if one.what.startswith("parameter server")]
    assert (server.unit, server.price) == ("h", 0.17)
    assert summary.bill.total > server.amount > 0
    assert [one.worker for one in summary.workers] == [0, 1, 2]


FAULTY = """
import os, signal
from mlless.baselines import cirrus
from mlless.baselines.contract import run_function
from mlless.messages import Report

def main(payload):
    run_function(payload, work)

def work(function):
    send, (worker, generation) = function.link.send, function.launch.me
    def killed(message):
        if isinstance(message, Report) and message.step == 7 and worker == 1 and generation == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        send(message)
    function.link.send = killed
    if os.environ.get("RAISES") and worker == 1:
        raise RuntimeError("a fault of this test")
    cirrus.work(function)
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Cirrus with a worker that is killed when it has pushed, but not yet told; all of it raise if RAISES."""
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "faulty_cirrus.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'faults'}:{Path(mlless.__file__).parents[1]}")
    return type(CIRRUS)(about="", wishes=CIRRUS.wishes, lead=CIRRUS.lead, entry="faulty_cirrus:main")


def test_a_worker_that_is_killed_is_started_anew(faulty: System, ratings: Dataset, tmp_path: Path) -> None:
    spec = planned(ratings)
    summary, told = run(faulty, spec, ratings, tmp_path / "run")
    (loss,) = [loss for one in told for loss in one.losses]
    assert "worker 1 died" in loss
    assert "started anew" in loss
    assert sum(one.samples for one in told) == 2 * spec.rows
    assert summary.heldout["rmse"] < 1.0


def test_a_worker_that_fails_again_and_again_is_told(
    faulty: System, ratings: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAISES", "1")
    with pytest.raises(WorkerFailed, match=r"worker 1 failed: RuntimeError\('a fault of this test'\)"):
        run(faulty, planned(ratings), ratings, tmp_path / "run")


@pytest.mark.parametrize(
    ("blow", "fate"),
    [(signal.SIGKILL, "signal SIGKILL"), (signal.SIGSTOP, "it was there, and did not answer")],
    ids=["killed", "stopped"],
)
def test_a_job_whose_server_is_lost_ends_with_its_best_model(
    blow: signal.Signals, fate: str, ratings: Dataset, tmp_path: Path
) -> None:
    servers: list[tuple[int, str]] = []

    @contextmanager
    def watched(spec: JobSpec, epoch: int, job: str) -> Iterator[Serving]:
        with open_server(spec, epoch, job) as server:
            servers.append((server.pid, job))
            yield server

    def strike(record: StepRecord) -> None:
        if record.step == 17:
            os.kill(servers[0][0], blow)

    system = type(CIRRUS)(
        about="", wishes=CIRRUS.wishes, entry=CIRRUS.entry, lead=partial(cirrus.lead, open_server=watched)
    )
    spec = msgspec.structs.replace(planned(ratings, epochs=50), deadlines=Deadlines(step=1.0))
    with pytest.raises(JobError, match=f"the parameter server is lost.*found {fate}"):
        run(system, spec, ratings, tmp_path / "run", strike)
    ((_, job),) = servers
    assert not tagged(job)
    assert mlless.evaluate(tmp_path / "run", ratings.location)["rmse"] < 1.1
    assert read_summary(place_of(tmp_path / "run")).stop_reason == "failed"


def test_a_server_ends_with_who_has_started_it(ratings: Dataset, tmp_path: Path) -> None:
    told = tmp_path / "spec.json"
    told.write_bytes(msgspec.json.encode(planned(ratings)))
    script = (
        "import msgspec, pathlib, sys, time; from mlless.job import JobSpec\n"
        "from mlless.baselines.parameter_process import Serving, open_server\n"
        "spec = msgspec.json.decode(pathlib.Path(sys.argv[1]).read_bytes(), type=JobSpec)\n"
        "with open_server(spec, 9, 'a-test-of-ends') as server: print(server.pid, flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(told)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        assert pid in tagged("a-test-of-ends")
        driver.kill()
    eventually(lambda: pid not in tagged("a-test-of-ends"), "the server ends")


def test_functions_elsewhere_are_refused(ratings: Dataset, tmp_path: Path) -> None:
    deployment = Deployment(runtime="lithops", store="redis://localhost:1")
    with pytest.raises(UsageError, match=r"listens on this machine alone.*`runtime` processes"):
        CIRRUS.run(
            "cirrus", planned(ratings), ratings, place_of(tmp_path), deployment=deployment, listen=print
        )
