"""PyTorch over gloo on real processes: against the steps of MLLess, and against an oracle in one process.

PyTorch is no part of what tests install: pip install torch, and run this file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import mlless
from mlless.baselines.contract import System, Tables
from mlless.baselines.pytorch import SYSTEMS
from mlless.data.assembly import assemble
from mlless.data.dataset import Dataset
from mlless.data.holding import Joined
from mlless.data.partition import partition
from mlless.data.synthetic import write_clicks
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.errors import MLLessError
from mlless.exchange.filter import SignificanceFilter
from mlless.job import JobSpec, Nesterov, Sync
from mlless.locations import place_of
from mlless.membership import deal, groups_of, order_of, parts_of
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.records import Summary
from mlless.replica import Replica
from mlless.report.history import read_history
from mlless.simulation.environment import Environment
from mlless.simulation.world import load_world
from mlless.wishes import Wishes

pytest.importorskip("torch")

NEAR = 2e-6  # of the largest parameter: how far steps in PyTorch and in our kernels may come apart


def planned(system: System, dataset: Dataset, **wishes: object) -> JobSpec:
    """Return a job of three workers and two epochs of 15 steps, unless ``wishes`` say otherwise."""
    rows = sum(file.rows for file in dataset.manifest.train)
    wishes = {"workers": 3, "epochs": 2, "batch_size": rows // 45, "seed": 5, **wishes}
    return system.plan(msgspec.convert(wishes, Wishes), dataset)


def run(system: System, spec: JobSpec, dataset: Dataset, out: Path) -> Summary:
    return system.run("it", spec, dataset, place_of(out), deployment=Deployment(), listen=lambda record: None)


def tables(run: Path) -> Tables:
    return mlless.load(run).artifact.tables


def near(found: Tables, expected: Tables, bound: float = NEAR) -> None:
    for name, table in expected.items():
        assert np.abs(found[name] - table).max() <= bound * np.abs(table).max(), name


SLOW_NESTEROV = {"optimizer": "nesterov", "learning_rate": 0.5}


@pytest.mark.parametrize(
    ("kind", "wishes"),
    [
        ("ratings", {}),
        ("ratings", {**SLOW_NESTEROV, "l2": 0.02}),
        ("clicks", {}),
        ("clicks", {**SLOW_NESTEROV, "l2": 0.001}),
        ("clicks", {"merge": "sqrt-members", "workers": 2}),
    ],
)
@pytest.mark.parametrize("name", ["pytorch-matched", "pytorch-sparse"])
def test_the_steps_are_those_of_mlless(
    name: str, kind: str, wishes: dict[str, object], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    spec = planned(SYSTEMS[name], dataset, **wishes)
    summary = run(SYSTEMS[name], spec, dataset, tmp_path / "it")
    own = run_job(spec, dataset, tmp_path / "mlless").summary
    assert (summary.steps, summary.restored) == (own.steps, False)
    near(tables(tmp_path / "it"), tables(tmp_path / "mlless"))
    found, expected = (read_history(place_of(tmp_path / name)) for name in ("it", "mlless"))
    losses = [[one.loss for one in history if one.loss] for history in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert summary.heldout == pytest.approx(own.heldout, rel=1e-5)


def test_rows_with_values_and_weights_are_taken_as_by_mlless(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    with (tmp_path / "c.svm").open("w") as file:
        for _ in range(600):
            ids = np.sort(generator.choice(50, 5, replace=False))
            entries = " ".join(f"{one}:{generator.uniform(-1, 2):.3f}" for one in ids)
            print(int(generator.random() < 0.3), entries, file=file)
    dataset = partition(tmp_path / "c.svm", tmp_path / "data")
    for name in ("pytorch-matched", "pytorch-sparse"):
        spec = planned(SYSTEMS[name], dataset)
        run(SYSTEMS[name], spec, dataset, tmp_path / name)
        run_job(spec, dataset, tmp_path / "mlless", overwrite=True)
        near(tables(tmp_path / name), tables(tmp_path / "mlless"))


def averages(spec: JobSpec, dataset: Dataset) -> Tables:
    """Train with the mean of the workers' gradients and Nesterov's momentum, in one process."""
    assert isinstance(spec.optimizer, Nesterov)
    l2 = spec.model.l2
    model = model_of(msgspec.structs.replace(spec.model, l2=0.0))
    tables = model.initial(np.random.Generator(np.random.PCG64(spec.seed)))
    velocities = {name: np.zeros_like(table) for name, table in tables.items()}
    files = dataset.manifest.train
    owners = deal([file.rows for file in files], range(spec.workers))
    owned = [
        Joined({group: dataset.read(files[group]) for group in groups_of(owners, worker)})
        for worker in range(spec.workers)
    ]
    parts = parts_of(spec.rows, spec.batch_size, spec.workers)
    for step in range(parts * spec.stop.epochs):
        epoch, number = divmod(step, parts)
        part = order_of(spec.seed, epoch, parts)[number]
        moves: list[Tables] = []
        for rows in owned:
            assert rows.rows is not None
            batch = assemble(rows.rows, *rows.bounds(part, parts), dataset.manifest.shape)
            moves.append(downhill(model, tables, batch))
        for name, table in tables.items():
            move = np.mean([one[name] for one in moves], axis=0)
            if name == "features":
                move = move - l2 * table
            velocities[name] = spec.optimizer.momentum * velocities[name] + move
            table += spec.optimizer.learning_rate * (move + spec.optimizer.momentum * velocities[name])
    return tables


def downhill(model: Any, tables: Tables, batch: Any) -> Tables:
    """Return the negative gradient of a mini-batch: the step of length one that our kernels take."""
    replica = Replica(model.shapes)
    replica.restore(tables)
    publish = SignificanceFilter(Sync(significance=0.0, half=False, merge="sum"), replica, alone=True)
    plain = Nesterov(learning_rate=1.0, momentum=0.0)
    model.step(replica, batch, plain, Moment(0, 0, 1), publish.prepare(0, batch.touched))
    return {name: table - tables[name] for name, table in replica.snapshot().items()}


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
def test_dense_gradients_are_averaged(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    wishes = {**SLOW_NESTEROV, "l2": 0.001} if kind == "clicks" else SLOW_NESTEROV
    spec = planned(SYSTEMS["pytorch"], dataset, **wishes)
    assert not run(SYSTEMS["pytorch"], spec, dataset, tmp_path / "run").restored
    near(tables(tmp_path / "run"), averages(spec, dataset), 1e-5)


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
@pytest.mark.parametrize("wishes", [{}, {**SLOW_NESTEROV, "l2": 0.001}])
@pytest.mark.parametrize("name", SYSTEMS)
def test_in_a_world_are_the_same_steps(
    name: str, kind: str, wishes: dict[str, object], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What is played by our kernels is what PyTorch does: the same losses, bytes and model, to rounding."""
    dataset: Dataset = request.getfixturevalue(kind)
    system = SYSTEMS[name]
    spec = planned(system, dataset, **wishes)
    run(system, spec, dataset, tmp_path / "run")
    world = system.placed(load_world("lan"))
    played = system.play(spec, dataset, Deployment())(Environment(world, spec, dataset), lambda record: None)
    real = read_history(place_of(tmp_path / "run"))
    near(played.tables, tables(tmp_path / "run"), 1e-5)
    losses = [[one.loss for one in records if one.loss] for records in (played.records, real)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for field in ("bytes_out", "bytes_in", "entries", "samples"):
        told = [[getattr(one, field) for one in records] for records in (played.records, real)]
        assert told[0] == told[1], field


@pytest.mark.parametrize("name", SYSTEMS)
def test_one_whose_model_diverges_says_so_and_keeps_the_best(
    name: str, ratings: Dataset, tmp_path: Path
) -> None:
    spec = planned(SYSTEMS[name], ratings, optimizer="nesterov", learning_rate=1e4)
    summary = run(SYSTEMS[name], spec, ratings, tmp_path / "run")
    assert summary.stop_reason == "diverged"
    assert summary.restored
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.safetensors",
        "history.jsonl",
        "summary.json",
    }


def test_some_train_on_nothing_where_rows_are_few(tmp_path: Path) -> None:
    write_clicks(tmp_path / "c.svm", rows=80, features=30, per_row=4, seed=2)
    dataset = partition(tmp_path / "c.svm", tmp_path / "data")
    for name in ("pytorch", "pytorch-matched", "pytorch-sparse"):
        spec = planned(SYSTEMS[name], dataset, batch_size=1)
        run(SYSTEMS[name], spec, dataset, tmp_path / name)
        if name != "pytorch":
            run_job(spec, dataset, tmp_path / "mlless", overwrite=True)
            near(tables(tmp_path / name), tables(tmp_path / "mlless"))
    assert any(one.samples < 3 for one in read_history(place_of(tmp_path / "pytorch"))[:-2])


FAULTY = """
import os, signal
from mlless.baselines.contract import run_function
from mlless.baselines.pytorch import course, worker

def main(payload):
    run_function(payload, work)

def work(function):
    if function.launch.me[0] == 1:
        step = course.Course._step
        def killed(itself, plan):
            if plan.step == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(itself, plan)
        course.Course._step = killed
    worker.work(function)
"""


def test_a_process_that_is_killed_ends_the_job(
    ratings: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "killed_rank.py").write_text(FAULTY)
    monkeypatch.setenv(
        "PYTHONPATH",
        f"{tmp_path / 'faults'}:{Path(mlless.__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}",
    )
    own = SYSTEMS["pytorch-matched"]
    system = System(
        about="", wishes=own.wishes, served=False, here=True, lead=own.lead, entry="killed_rank:main"
    )
    with pytest.raises(MLLessError, match="worker 1 died"):
        run(system, planned(system, ratings), ratings, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"history.jsonl", "summary.json"}
