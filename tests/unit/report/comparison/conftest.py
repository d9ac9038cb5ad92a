"""Runs as they were recorded: made up here, none is trained."""

from __future__ import annotations

import pytest

from mlless.autotuner.decision import Decision, FittedCurve
from mlless.billing.meter import Bill, Item
from mlless.locations import Directory
from mlless.report.comparison.recorded import Recorded
from mlless.report.history import HistoryFile, write_summary

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
