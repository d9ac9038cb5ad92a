"""A job, its steps, its summary and its files as values: no job is run here."""

from __future__ import annotations

import msgspec
import pytest

from mlless.autotuner.decision import Decision, FittedCurve
from mlless.billing.meter import Bill, Item
from mlless.data.manifest import Clicks, File, Made, Manifest, Ratings
from mlless.job import Adagrad, Factorization, JobSpec, Logistic, Stop, Sync
from mlless.locations import Directory
from mlless.records import StepRecord, StepTimes, Summary, WorkerSummary
from mlless.report.history import HistoryFile, write_summary
from mlless.report.recorded import Recorded

TIMES = StepTimes(fetch=0.1, compute=0.4, filter=0.1, publish=0.1, wait=0.2, merge=0.1, evaluate=0.0)
TAIL = FittedCurve("tail", (10.0, 20.0, 30.0), (0.9, 0.8, 0.7))
LEFT_TO_PAY = {"dollars": 0.02, "seconds": 9.0, "dollars_if_all_stay": 0.03, "seconds_if_all_stay": 8.0}
LEFT = Decision(
    22,
    "leave",
    (3, 4),
    "because",
    {"knee": 9.0, "speed_base": 12.0, "speed_slope": -1.0, **LEFT_TO_PAY},
    (TAIL,),
)
STAYED = Decision(12, "stay", (), "before the knee", {"workers": 4.0})


@pytest.fixture(scope="session")
def mf() -> Factorization:
    return Factorization(users=10, items=5, factors=2, l2=0.06, centre=3.5, deviation=1.0, low=1.0, high=5.0)


@pytest.fixture(scope="session")
def lr() -> Logistic:
    return Logistic(features=1000, l2=0.001, intercept=-1.0)


@pytest.fixture(scope="session")
def job(mf):
    """Return a function that makes a job, of ratings unless told otherwise."""

    def job(**changes):
        values = {
            "dataset": "/data/r",
            "fingerprint": "0",
            "groups": 10,
            "rows": 640,
            "held_out": 64,
            "batch_size": 64,
            "model": mf,
            "optimizer": Adagrad(learning_rate=0.1),
            "sync": Sync(significance=0.7, half=True, merge="sqrt-members"),
            "stop": Stop(epochs=4),
            "workers": 2,
            "seed": 0,
        }
        return JobSpec(**values | changes)

    return job


@pytest.fixture(scope="session")
def step():
    """Return a function that makes the record of a step of two workers, ten steps in two epochs."""

    def step(number, **changes):
        values = {
            "step": number,
            "epoch": (number + 1) / 5,
            "time": number / 10,
            "loss": 1.0,
            "train_loss": 1.0,
            "heldout": None,
            "workers": 2,
            "samples": 20,
            "entries": 7,
            "bytes_out": 100,
            "bytes_in": 90,
            "bytes_fetched": 50,
            "times": TIMES,
        }
        return StepRecord(**values | changes)

    return step


@pytest.fixture(scope="session")
def summary(job):
    """Return a function that makes a summary."""

    def summary(**changes):
        values = {
            "steps": 20,
            "epochs": 4.0,
            "wall_seconds": 12.0,
            "cpu_seconds": 20.0,
            "startup_seconds": 0.1,
            "startup_cpu_seconds": 0.1,
            "times": TIMES,
            "train_loss": 0.5,
            "heldout": {"rmse": 0.8},
            "model_step": 20,
            "restored": False,
            "stop_reason": "epochs",
            "bytes_published": 34_100_000,
            "bytes_read": 2_000,
            "bytes_fetched": 10,
            "entries_published": 99,
            "workers": [WorkerSummary(0, 0, 123, None)],
            "kernels": "native",
            "version": "1",
            "job": job(),
        }
        return Summary(**values | changes)

    return summary


@pytest.fixture(scope="session")
def manifest():
    """Return a function that makes a manifest of 100 training rows and 10 held-out ones."""

    def manifest(shape=None, **changes):
        values = {
            "format": 1,
            "shape": shape or Ratings(users=10, items=5, mean=3.5, deviation=1.0, low=1.0, high=5.0),
            "made": Made("1", "r.csv", 9, "ratings", 0, 0.1, None, 0),
            "rows": 110,
            "train": (File("train/0", 50, 1, 0), File("train/1", 50, 1, 0)),
            "validation": (File("validation/0", 10, 1, 0),),
            "ids": None,
        }
        return Manifest(**values | changes)

    return manifest


@pytest.fixture(scope="session")
def clicks_shape():
    return Clicks(features=1000, index_base=1, positives=0.25)


@pytest.fixture(scope="session")
def changed():
    return msgspec.structs.replace


@pytest.fixture(scope="session")
def history(step):
    """Return a function that makes the records of a job of 40 steps, evaluated before every tenth.

    It takes ``pace`` seconds a step and ``price`` dollars a second; with ``tuned`` two of four workers leave.
    """

    def history(*, pace=1.0, price=None, tuned=False, metric="rmse", better=0.0):
        return [
            step(
                number,
                time=pace * (number + 1),
                loss=1.0 / (1 + number) + 0.5,
                train_loss=1.0 / (1 + number) + 0.5,
                heldout={metric: 1.0 / (1 + number) + 0.8 - better} if metric and number % 10 == 0 else None,
                workers=2 if tuned and number >= 26 else 4,
                cost=None if price is None else price * pace * (number + 1),
                decision={13: STAYED, 23: LEFT}.get(number) if tuned else None,
            )
            for number in range(40)
        ]

    return history


@pytest.fixture(scope="session")
def bill():
    """Return a function that makes a bill of so many dollars."""

    def bill(total):
        items = (
            Item("functions", 90.0, "GB-s", 0.9 * total / 90, 0.9 * total),
            Item("Redis", 1.0, "h", 0.1 * total, 0.1 * total),
        )
        return Bill("a tariff", items, total)

    return bill


@pytest.fixture(scope="session")
def recorded(summary, history):
    """Return a function that makes a recorded run of 40 steps."""

    def recorded(name="one", changes=None, **how):
        told = summary(**{"steps": 40, "restored": True} | (changes or {}))
        return Recorded(name, f"/runs/{name}", told, history(**how))

    return recorded


@pytest.fixture(scope="session")
def store(summary, history):
    """Return a function that stores a run of 40 steps in a folder and returns that."""

    def store(folder, changes=None, **how):
        folder.mkdir(parents=True)
        with HistoryFile(Directory(folder)) as file:
            for record in history(**how):
                file.add(record)
        write_summary(Directory(folder), summary(**{"steps": 40, "restored": True} | (changes or {})))
        return folder

    return store


@pytest.fixture
def stored(tmp_path, store):
    """Return a function that stores a run of 40 steps under a name."""
    return lambda name="one", changes=None, **how: store(tmp_path / name, changes, **how)
