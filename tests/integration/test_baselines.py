"""Other systems on real processes, against oracles in one process: identities, not tolerances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.sparse
import sklearn.linear_model
from servers.s3 import S3Server

import mlless
from mlless.baselines.contract import System, Tables
from mlless.baselines.pywren import SYSTEMS as PYWREN
from mlless.baselines.single import SYSTEMS as SINGLE
from mlless.data.assembly import assemble
from mlless.data.dataset import Dataset
from mlless.data.groups import joined
from mlless.data.holding import Joined
from mlless.data.partition import partition
from mlless.data.synthetic import write_clicks, write_ratings
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.errors import WorkerFailed
from mlless.exchange.filter import SignificanceFilter
from mlless.job import JobSpec
from mlless.locations import Location, place_of
from mlless.membership import deal, groups_of, order_of, parts_of
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.records import StepRecord, Summary
from mlless.replica import Replica
from mlless.report.history import read_history
from mlless.wishes import Wishes


def planned(system: System, dataset: Dataset, **wishes: object) -> JobSpec:
    """Return a job of three workers and two epochs of 15 steps, unless ``wishes`` say otherwise."""
    rows = sum(file.rows for file in dataset.manifest.train)
    wishes = {"workers": 3, "epochs": 2, "batch_size": rows // 45, "seed": 5, **wishes}
    return system.plan(msgspec.convert(wishes, Wishes), dataset)


def run(
    system: System, spec: JobSpec, dataset: Dataset, out: Location, listen=lambda record: None
) -> Summary:
    return system.run("it", spec, dataset, place_of(out), deployment=Deployment(), listen=listen)


def tables(run: Location) -> dict[str, bytes]:
    return {name: table.tobytes() for name, table in mlless.load(run).artifact.tables.items()}


def means(spec: JobSpec, dataset: Dataset) -> Tables:
    """Train as PyWren does, in one process: each worker moves a copy of the model, then comes their mean."""
    model, files = model_of(spec.model), dataset.manifest.train
    shared = model.initial(np.random.Generator(np.random.PCG64(spec.seed)))
    replicas = [Replica(model.shapes) for _ in range(spec.workers)]
    owners = deal([file.rows for file in files], range(spec.workers))
    owned = [
        Joined({group: dataset.read(files[group]) for group in groups_of(owners, worker)})
        for worker in range(spec.workers)
    ]
    parts, samples = parts_of(spec.rows, spec.batch_size, spec.workers), [1] * spec.workers

    def agree(copies: list[Tables]) -> Tables:
        return {
            name: np.mean([copy[name] for copy in copies], axis=0, dtype=np.float64).astype(np.float32)
            for name in shared
        }

    for step in range(parts * spec.stop.epochs + 1):
        epoch, number = divmod(step, parts)
        last = epoch == spec.stop.epochs
        copies = []
        for worker, (replica, rows) in enumerate(zip(replicas, owned, strict=True)):
            replica.restore(shared)
            changes = SignificanceFilter(spec.sync, replica, alone=True)
            if last:  # what L2 has still to pull
                moment = Moment(step - 1, epoch - 1, spec.workers)
                changes.flush(model.settle(replica, spec.optimizer, moment, samples[worker]))
            else:
                part = order_of(spec.seed, epoch, parts)[number]
                assert rows.rows is not None
                batch = assemble(rows.rows, *rows.bounds(part, parts), dataset.manifest.shape)
                moment, samples[worker] = Moment(step, epoch, spec.workers), batch.samples
                model.step(replica, batch, spec.optimizer, moment, changes.prepare(step, batch.touched))
            copies.append(replica.snapshot())
        shared = agree(copies)
    return shared


@pytest.mark.parametrize(
    ("kind", "wishes"),
    [
        ("ratings", {}),
        ("ratings", {"optimizer": "nesterov"}),
        ("clicks", {}),
    ],
)
def test_pywren_reduces_to_the_mean_of_models(
    kind: str, wishes: dict[str, object], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    spec = planned(PYWREN["pywren"], dataset, **wishes)
    summary = run(PYWREN["pywren"], spec, dataset, tmp_path / "run")
    expected = {name: table.tobytes() for name, table in means(spec, dataset).items()}
    assert not summary.restored  # it is the last model that the oracle tells of
    assert tables(tmp_path / "run") == expected
    metric = spec.metrics[0]
    found = mlless.evaluate(tmp_path / "run", dataset.location)[metric]
    assert found == pytest.approx(summary.heldout[metric], rel=1e-5)


@pytest.mark.parametrize("kind", ["ratings", "clicks"])
def test_pywren_with_updates_takes_the_steps_of_mlless_with_bsp(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    system = PYWREN["pywren-updates"]
    spec = planned(system, dataset)
    told: list[StepRecord] = []
    summary = run(system, spec, dataset, tmp_path / "pywren", told.append)
    own = run_job(spec, dataset, tmp_path / "mlless").summary
    assert tables(tmp_path / "pywren") == tables(tmp_path / "mlless")
    history = read_history(place_of(tmp_path / "pywren"))
    assert history == told
    losses = [record.loss for record in read_history(place_of(tmp_path / "mlless"))]
    assert [record.loss for record in history] == losses
    assert (summary.steps, summary.epochs, summary.heldout.keys()) == (
        own.steps,
        own.epochs,
        own.heldout.keys(),
    )
    assert summary.heldout == pytest.approx(own.heldout, rel=1e-6)
    assert summary.system == "it"
    assert own.system == "mlless"


def test_a_job_leaves_the_files_of_its_run_alone(ratings: Dataset, tmp_path: Path) -> None:
    spec = planned(PYWREN["pywren"], ratings, epochs=1, tariff="aws-lambda-x86")
    summary = run(PYWREN["pywren"], spec, ratings, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.safetensors",
        "history.jsonl",
        "summary.json",
    }
    assert summary.bill is not None
    bill = {item.what: item.quantity for item in summary.bill.items}
    # A cut, 15 steps and a flush, each with a reduce, and the last step in which all are scored.
    assert bill["invocations"] == 3 + 16 * 4 + 3
    assert "ElastiCache cache.m6g.large" not in bill
    assert [one.worker for one in summary.workers] == [0, 1, 2, 3]
    assert all(one.cpu_seconds and one.seconds for one in summary.workers)


def test_pywren_over_an_object_store(bucket: str, s3: S3Server, tmp_path: Path) -> None:
    write_ratings(tmp_path / "r.csv", users=80, items=60, rows=3000, seed=5)
    here = partition(tmp_path / "r.csv", tmp_path / "data")
    there = partition(tmp_path / "r.csv", f"s3://{bucket}/data")
    system = PYWREN["pywren-updates"]
    run(system, planned(system, there, epochs=1, workers=2), there, f"s3://{bucket}/run")
    run_job(planned(system, here, epochs=1, workers=2), here, tmp_path / "run")
    assert tables(f"s3://{bucket}/run") == tables(tmp_path / "run")
    assert {name for name in s3.objects(bucket) if not name.startswith("data/")} == {
        f"run/{name}" for name in ("model.safetensors", "history.jsonl", "summary.json")
    }


FAULTY = """
import os, signal
from pathlib import Path
from typing import Any
from mlless.baselines import pywren
from mlless.baselines.contract import run_function

def main(payload):
    run_function(payload, work)

def work(function):
    once = Path(os.environ["ONCE"])
    if function.launch.me == (1, 4) and not once.exists():
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("RAISES") and function.launch.me[0] == 1:
        raise RuntimeError("a fault of this test")
    pywren.work(function)
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """PyWren with a call that is killed; if RAISES is set, all of a worker raise."""
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "faulty_calls.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'faults'}:{Path(mlless.__file__).parents[1]}")
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    system = PYWREN["pywren-updates"]
    return System(about="", wishes=system.wishes, talks=False, lead=system.lead, entry="faulty_calls:main")


def test_a_call_that_is_killed_is_made_again(faulty: System, ratings: Dataset, tmp_path: Path) -> None:
    spec = planned(faulty, ratings, epochs=1)
    run(faulty, spec, ratings, tmp_path / "faulty")
    run_job(spec, ratings, tmp_path / "run")
    assert (tmp_path / "once").exists()
    assert tables(tmp_path / "faulty") == tables(tmp_path / "run")
    (loss,) = [loss for record in read_history(place_of(tmp_path / "faulty")) for loss in record.losses]
    assert "map 1 died" in loss
    assert "started anew" in loss


def test_a_call_that_fails_again_and_again_is_told(
    faulty: System, ratings: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAISES", "1")
    with pytest.raises(WorkerFailed, match=r"cut 1 failed: RuntimeError\('a fault of this test'\)") as caught:
        run(faulty, planned(faulty, ratings), ratings, tmp_path / "run")
    assert "in work" in str(caught.value)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"history.jsonl", "summary.json"}


# One machine


def alone(name: str, folder: Path, source: Path, **wishes: object) -> tuple[Tables, Any, JobSpec]:
    """Return the model that a library has left, and the rows it was trained on, none being held out."""
    dataset = partition(source, folder / "data", validation=0.0)
    spec = SINGLE[name].plan(msgspec.convert({"seed": 4, **wishes}, Wishes), dataset)
    summary = run(SINGLE[name], spec, dataset, folder / "run")
    assert not summary.restored
    assert summary.cpu_seconds > 0
    return (
        mlless.load(folder / "run").artifact.tables,
        joined(list(dataset.groups(dataset.manifest.train))),
        spec,
    )


def test_scikit_learn_learns_as_by_itself(tmp_path: Path) -> None:
    write_clicks(tmp_path / "c.svm", rows=2000, features=500, per_row=12, seed=1)
    found, rows, _ = alone("sklearn-sgd", tmp_path, tmp_path / "c.svm", epochs=3)
    x = scipy.sparse.csr_matrix(
        (np.ones(len(rows.indices), np.float32), rows.indices, rows.starts), (2000, len(found["features"]))
    )
    own = sklearn.linear_model.SGDClassifier(loss="log_loss", random_state=4)
    for _ in range(3):
        own.partial_fit(x, rows.labels, classes=[0, 1])
    assert found["features"][:, 0] == pytest.approx(own.coef_[0], rel=1e-6)
    assert found["intercept"].item() == pytest.approx(own.intercept_.item(), rel=1e-6)


def test_vowpal_wabbit_learns_as_by_itself(tmp_path: Path) -> None:
    vw = pytest.importorskip("vowpalwabbit")
    write_clicks(tmp_path / "c.svm", rows=2000, features=500, per_row=12, seed=1)
    found, rows, _ = alone("vowpal-wabbit", tmp_path, tmp_path / "c.svm", epochs=3)
    source = tmp_path / "rows.vw"
    with source.open("w") as file:
        for label, begin, end in zip(rows.labels, rows.starts, rows.starts[1:], strict=False):
            file.write(f"{2 * int(label) - 1} | {' '.join(map(str, rows.indices[begin:end]))}\n")
    # Its own constant falls upon no feature with so many bits.
    options = f"-d {source} --cache_file {tmp_path}/cache --passes 3 --holdout_off -b 20 --quiet"
    own = vw.Workspace(f"--loss_function logistic {options}")
    expected = [own.get_weight(index) for index in range(len(found["features"]))]
    assert found["features"][:, 0] == pytest.approx(np.array(expected), rel=1e-4, abs=1e-6)
    assert found["intercept"].item() == pytest.approx(own.get_weight(11650396 % (1 << 20)), rel=1e-4)
    own.finish()


def predicted(found: Tables, rows: Any, spec: JobSpec) -> np.ndarray:
    p, q = found["users"][rows.users].astype(float), found["items"][rows.items].astype(float)
    standardised = (p[:, :-1] * q[:, :-1]).sum(axis=1) + p[:, -1] + q[:, -1]
    return spec.model.centre + spec.model.deviation * standardised


@pytest.mark.parametrize("name", ["cornac", "surprise"])
def test_ratings_are_learnt_as_by_the_library_itself(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    write_ratings(tmp_path / "r.csv", users=80, items=60, rows=3000, seed=5)
    epochs = {"epochs": 3} if name == "cornac" else {}
    found, rows, spec = alone(name, tmp_path, tmp_path / "r.csv", factors=5, **epochs)
    triples = list(zip(rows.users.tolist(), rows.items.tolist(), rows.ratings.tolist(), strict=True))
    if name == "cornac":
        import cornac

        # Its own way numbers users and items as they come: as many start at other factors.
        data = cornac.data.Dataset(
            80,
            60,
            {n: n for n in range(80)},
            {n: n for n in range(60)},
            tuple(map(np.array, zip(*triples, strict=True))),
        )
        own = cornac.models.MF(k=5, max_iter=3, seed=4).fit(data)
        expected = [own.score(user, item) for user, item, _ in triples]
    else:
        import surprise

        data = surprise.Trainset({}, {}, 80, 60, 3000, (1, 5), {}, {})
        for user, item, rating in triples:
            data.ur.setdefault(user, []).append((item, rating))
        own = surprise.SVD(n_factors=5, random_state=4).fit(data)
        expected = [
            own.trainset.global_mean + own.bu[u] + own.bi[i] + own.pu[u] @ own.qi[i] for u, i, _ in triples
        ]
    assert predicted(found, rows, spec) == pytest.approx(np.array(expected), abs=1e-4)
