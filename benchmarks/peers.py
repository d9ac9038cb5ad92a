"""The contenders of `single_machine.py`: how each takes plain arrays and learns, and with which settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, Any]  # users, items and ratings; or X, a CSR matrix, and clicks
Predict = Callable[[Arrays], NDArray[Any]]
Prepared = Callable[[], None]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """``learn(train, seed, prepared, **settings)`` calls ``prepared`` once its own data set stands.

    ``module`` is imported before any clock starts. ``grid`` is what ``--choose`` tries.
    """

    module: str
    learn: Callable[..., Predict]
    settings: Settings = field(default_factory=dict)
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)


def _mlless_factorization(train: Arrays, seed: int, prepared: Prepared, **settings: Any) -> Predict:
    import mlless

    pairs = np.column_stack([train["users"], train["items"]])
    prepared()
    model = mlless.MatrixFactorization(random_state=seed, **settings).fit(pairs, train["ratings"])
    return lambda test: model.predict(np.column_stack([test["users"], test["items"]]))


def _cornac(train: Arrays, seed: int, prepared: Prepared, *, threads: int = 1, **settings: Any) -> Predict:
    from cornac.data import Dataset
    from cornac.models import MF

    # The data set that Dataset.from_uir makes in a loop over the rows, which takes many times as long.
    (users, u), (items, i) = (np.unique(train[name], return_inverse=True) for name in ("users", "items"))
    u_row, i_row = ({original: row for row, original in enumerate(ids.tolist())} for ids in (users, items))
    data = Dataset(len(users), len(items), u_row, i_row, (u, i, train["ratings"]))
    prepared()
    # With a seed MF takes one thread only.
    model = MF(seed=seed if threads == 1 else None, num_threads=threads, **settings).fit(data)
    strangers = len(users), len(items)
    return _one_by_one(
        lambda user, item: model.rate(
            u_row.get(user, strangers[0]), i_row.get(item, strangers[1]), clipping=False
        )
    )


def _surprise(train: Arrays, seed: int, prepared: Prepared, **settings: Any) -> Predict:
    from surprise import SVD, Dataset, Reader

    columns = (train[name].tolist() for name in ("users", "items", "ratings"))
    rows = [(*row, None) for row in zip(*columns, strict=True)]  # None: no timestamp
    data = Dataset(Reader(rating_scale=(1, 5))).construct_trainset(rows)  # the scale serves its clipping only
    prepared()
    model = SVD(random_state=seed, **settings).fit(data)
    return _one_by_one(lambda user, item: model.predict(user, item, clip=False).est)


def _one_by_one(rate: Callable[[int, int], float]) -> Predict:
    return lambda test: np.array(
        [rate(user, item) for user, item in zip(test["users"].tolist(), test["items"].tolist(), strict=True)]
    )


def _classifier(
    module: str, name: str, train: Arrays, seed: int, prepared: Prepared, **settings: Any
) -> Predict:
    model = getattr(importlib.import_module(module), name)(random_state=seed, **settings)
    prepared()  # a CSR matrix is what all of them take
    model.fit(train["X"], train["clicks"])
    return lambda test: model.predict_proba(test["X"])[:, 1]


def _clicks(module: str, name: str, settings: Settings | None = None, **grid: tuple[Any, ...]) -> Contender:
    return Contender(module, partial(_classifier, module, name), settings or {}, grid)


_MLLESS, _SKLEARN = "mlless.estimators", "sklearn.linear_model"
_TWELVE = {"max_iter": 12, "validation_fraction": 0.0}
_CORNAC = {"k": 20, "learning_rate": 0.0025, "lambda_reg": 0.04, "max_iter": 120}
_CORNAC_GRID = {
    "learning_rate": (0.0025, 0.005, 0.01),
    "lambda_reg": (0.02, 0.04, 0.06, 0.08),
    "max_iter": (20, 40, 80, 120, 160),
}
_SURPRISE = {"n_factors": 20, "lr_all": 0.005, "reg_all": 0.05, "n_epochs": 80}
_SURPRISE_GRID = {"lr_all": (0.005, 0.01), "reg_all": (0.02, 0.05, 0.08), "n_epochs": (20, 40, 80)}
_SGD_GRID = {"alpha": (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3), "average": (False, True)}

RATINGS = {
    "MLLess": Contender(_MLLESS, _mlless_factorization),
    "MLLess, 12 epochs on all rows": Contender(_MLLESS, _mlless_factorization, _TWELVE),
    "cornac MF, k=20": Contender("cornac.models", _cornac, {"k": 20}),
    "cornac MF, tuned": Contender("cornac.models", _cornac, _CORNAC, _CORNAC_GRID),
    "cornac MF, tuned, two threads": Contender("cornac.models", _cornac, {**_CORNAC, "threads": 2}),
    "surprise SVD, 20 factors": Contender("surprise", _surprise, {"n_factors": 20}),
    "surprise SVD, tuned": Contender("surprise", _surprise, _SURPRISE, _SURPRISE_GRID),
}
CLICKS = {
    "MLLess": _clicks(_MLLESS, "LogisticRegression"),
    "MLLess, 12 epochs on all rows": _clicks(_MLLESS, "LogisticRegression", _TWELVE),
    "L-BFGS": _clicks(_SKLEARN, "LogisticRegression"),
    "L-BFGS, tuned": _clicks(_SKLEARN, "LogisticRegression", {"C": 0.05}, C=(0.02, 0.05, 0.1, 0.2, 0.5)),
    "SGDClassifier": _clicks(_SKLEARN, "SGDClassifier", {"loss": "log_loss"}),
    "SGDClassifier, tuned": _clicks(
        _SKLEARN, "SGDClassifier", {"loss": "log_loss", "alpha": 5e-4}, **_SGD_GRID
    ),
}
CONTENDERS = {"ratings": RATINGS, "clicks": CLICKS}
