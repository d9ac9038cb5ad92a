"""MLLess: train large sparse models on serverless functions.

The shortest way from a table to a model::

    mlless.partition("ratings.csv", "data/ratings")
    run = mlless.train("data/ratings", model="mf", workers=4, out="runs/first")
    print(run.summary.heldout)
    run.model().predict_ratings([1, 1, 2], [31, 1029, 31])

Names load on first use, so that a cold function pays only for what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlless.data.dataset import Dataset, open_dataset
    from mlless.data.movielens import Fetched, fetch
    from mlless.data.partition import partition
    from mlless.data.synthesis import Synthesis, synthesize
    from mlless.detached.attaching import attach
    from mlless.detached.cleaning import clean
    from mlless.detached.launching import detach
    from mlless.detached.status import Status, status
    from mlless.detached.stopping import stop
    from mlless.errors import MLLessError
    from mlless.estimators.factorization import MatrixFactorization
    from mlless.estimators.logistic import LogisticRegression
    from mlless.prediction import Predictor, evaluate, load
    from mlless.report.comparison.page import write_report
    from mlless.run import Run
    from mlless.training import resume, train

__version__ = "0.1.0"

_PLACES = {
    "Dataset": "mlless.data.dataset",
    "open_dataset": "mlless.data.dataset",
    "partition": "mlless.data.partition",
    "Fetched": "mlless.data.movielens",
    "fetch": "mlless.data.movielens",
    "Synthesis": "mlless.data.synthesis",
    "synthesize": "mlless.data.synthesis",
    "attach": "mlless.detached.attaching",
    "clean": "mlless.detached.cleaning",
    "detach": "mlless.detached.launching",
    "Status": "mlless.detached.status",
    "status": "mlless.detached.status",
    "stop": "mlless.detached.stopping",
    "Run": "mlless.run",
    "resume": "mlless.training",
    "train": "mlless.training",
    "MLLessError": "mlless.errors",
    "LogisticRegression": "mlless.estimators",
    "MatrixFactorization": "mlless.estimators",
    "Predictor": "mlless.prediction",
    "evaluate": "mlless.prediction",
    "load": "mlless.prediction",
    "write_report": "mlless.report.comparison.page",
}
__all__ = [
    "Dataset",
    "Fetched",
    "LogisticRegression",
    "MLLessError",
    "MatrixFactorization",
    "Predictor",
    "Run",
    "Status",
    "Synthesis",
    "attach",
    "clean",
    "detach",
    "evaluate",
    "fetch",
    "load",
    "open_dataset",
    "partition",
    "resume",
    "status",
    "stop",
    "synthesize",
    "train",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'mlless' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
