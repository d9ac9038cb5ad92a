"""Sparse logistic regression as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mlless import recipes
from mlless.data.dataset import Dataset
from mlless.data.manifest import Clicks
from mlless.data.memory import clicks_in_memory
from mlless.estimators.base import Data, Trained, dataset_in
from mlless.estimators.callbacks import with_callbacks
from mlless.estimators.labelled import labels_of, relative, rows_of, two_classes
from mlless.job import JobSpec, Logistic
from mlless.models.logistic import probabilities
from mlless.wishes import Wishes

Doubles = NDArray[np.float64]
_FLOATS = [np.float64, np.float32]


class LogisticRegression(ClassifierMixin, Trained):
    """Binary logistic regression for wide sparse data, trained in mini-batches.

    What is None is the default of `mlless.train`, see its description. Features should be of similar
    scale, as for every method of stochastic gradients; sparse indicators are.

    Parameters
    ----------
    l2
        L2 strength on the mean log loss; None is 8 / rows (or the sum of their weights). In terms of
        scikit-learn's ``C`` it is ``1 / (C * rows)``.
    optimizer, learning_rate, sync, significance, max_time
        As in `mlless.train`.
    epochs, patience
        As in `mlless.train`; on arrays None means at least 2,000 steps.
    batch_size
        Rows of a mini-batch; None is a 300th of the rows, from 64 to 6,250.
    validation
        The share of rows held out to stop early and to keep the best model; None is 0.1 from 5,000
        rows on and 0 below.
    refit
        Whether the model is trained once more on all rows, for the number of epochs that was best for those
        held out. ``heldout_`` is then that of the model before. It is done for arrays only, and only if the
        held-out rows or the number of epochs ended the fit.
    workers
        1 trains in this process; more are processes of their own.
    warm_start
        Whether ``fit`` goes on from the model that is there.
    random_state
        A whole number is the seed itself.
    callbacks
        Objects with ``on_step(record)`` or ``on_epoch(record)``.

    Attributes
    ----------
    classes_, coef_, intercept_, n_features_in_, feature_names_in_
        As in scikit-learn.
    n_iter_, n_steps_
        Epochs of the last fit; steps of the whole training, on which the significance threshold depends.
    heldout_, stop_reason_
        Held-out metrics (empty without held-out rows), and why the last fit has stopped.
    """

    _kind: ClassVar[Literal["mf", "lr"]] = "lr"
    _rows_before: float

    def __init__(
        self,
        *,
        l2: float | None = None,
        optimizer: str = "adagrad",
        learning_rate: float | None = None,
        epochs: int | None = None,
        patience: int | None = None,
        batch_size: int | None = None,
        validation: float | None = None,
        refit: bool = True,
        max_time: float | None = None,
        workers: int = 1,
        sync: str = "isp",
        significance: float | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        self.l2 = l2
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.validation = validation
        self.refit = refit
        self.max_time = max_time
        self.workers = workers
        self.sync = sync
        self.significance = significance
        self.warm_start = warm_start
        self.random_state = random_state
        self.callbacks = callbacks

    @with_callbacks
    def fit(self, X: Data, y: Any = None, sample_weight: Any = None) -> Self:
        """Train on rows ``X`` with labels ``y`` of two classes, or on a partitioned data set without ``y``.

        A row with a weight of 2 counts like two rows.
        """
        goes_on = self._goes_on(partial=False)
        if not goes_on:
            self.__dict__.pop("classes_", None)
        self._learn(X, y, sample_weight, self._wishes(), goes_on, partial=False)
        return self

    @with_callbacks
    def partial_fit(
        self,
        X: Data,
        y: Any = None,
        classes: Any = None,
        sample_weight: Any = None,
        *,
        epochs: int | None = None,
    ) -> Self:
        """Go on training on rows ``X``, for one epoch unless said otherwise, in this process.

        ``classes`` names both classes in the first call if ``y`` does not hold both.
        """
        goes_on = self._goes_on(partial=True)
        if not goes_on:
            self.__dict__.pop("classes_", None)
            if classes is not None:
                self.classes_ = two_classes(np.unique(classes))
        epochs = recipes.PARTIAL_EPOCHS["lr"] if epochs is None else epochs
        wishes = self._wishes(epochs=epochs, patience=None, workers=1)
        self._learn(X, y, sample_weight, wishes, goes_on, partial=True)
        return self

    def _learn(self, X: Data, y: Any, weights: Any, wishes: Wishes, goes_on: bool, *, partial: bool) -> None:
        """Train; the default L2 strength follows from all rows so far, each counting as much as it weighs."""
        found = dataset_in(X, y)
        if found is None:
            dataset, total = self._dataset(X, y, weights, wishes.seed, anew=not goes_on, partial=partial)
        elif weights is not None:
            raise ValueError(
                "sample_weight is for arrays: a partitioned data set holds all there is to its rows"
            )
        else:
            dataset, total = self._taken(found), float(found.manifest.rows)
        share = sum(file.rows for file in dataset.manifest.train) / dataset.manifest.rows
        rows = total * share + (self._rows_before if goes_on else 0.0)

        def change(spec: JobSpec) -> JobSpec:
            if wishes.l2 is not None:
                return spec
            model = msgspec.structs.replace(spec.model, l2=recipes.clicks_l2(rows))
            return msgspec.structs.replace(spec, model=model)

        metadata = {} if weights is None else {"sample_weight": weights}
        heard = {"X": X, "y": y, "metadata": metadata}
        self._train(dataset, wishes, goes_on=goes_on, heard=heard, change=change)
        self._rows_before = rows

    def _dataset(
        self, X: Data, y: Any, weights: Any, seed: int, *, anew: bool, partial: bool
    ) -> tuple[Dataset, float]:
        """Return arrays as a data set, and the sum of their weights."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        X, y = validate_data(
            self, X, y, accept_sparse="csr", accept_large_sparse=True, dtype=_FLOATS, reset=anew
        )
        check_classification_targets(y)
        total = float(len(y))
        if weights is not None:
            weights = _check_sample_weight(weights, X, dtype=np.float64, ensure_non_negative=True)
            X, y, weights = X[weights > 0], y[weights > 0], weights[weights > 0]
            total = float(weights.sum())
        if not hasattr(self, "classes_"):
            self.classes_ = two_classes(np.unique(y), y)
        rows = rows_of(X, labels_of(y, self.classes_))
        cut = self._cut(len(rows), seed, partial=partial)
        return clicks_in_memory(rows, relative(weights), features=self.n_features_in_, cut=cut), total

    def _taken(self, dataset: Dataset) -> Dataset:
        """Return a partitioned data set of clicks; its classes are 0 and 1."""
        shape = dataset.manifest.shape
        if not isinstance(shape, Clicks):
            raise ValueError(f"{dataset.location}: LogisticRegression needs clicks, found ratings")
        features, expected = shape.table_rows, getattr(self, "n_features_in_", None)
        if hasattr(self, "classes_") and features != expected:
            raise ValueError(f"{dataset.location}: expected {expected} features, found {features}")
        self.classes_, self.n_features_in_ = np.array([0, 1]), features
        return dataset

    def _fitted(self, tables: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
        return {
            "classes_": self.classes_,
            "n_features_in_": self.n_features_in_,
            "coef_": tables["features"].reshape(1, -1),
            "intercept_": tables["intercept"].reshape(1),
        }

    def decision_function(self, X: Data) -> Doubles:
        """Return the log-odds of ``classes_[1]`` for each row."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=_FLOATS, reset=False)
        # A float64 copy of one column: the sums then do not depend on how rows are grouped.
        scores: Doubles = X @ self.coef_[0].astype(np.float64) + float(self.intercept_[0])
        return np.asarray(scores, np.float64)

    def predict_proba(self, X: Data) -> Doubles:
        """Return the probability of each class for each row."""
        positive = probabilities(self.decision_function(X))
        return np.column_stack([1.0 - positive, positive])

    def predict_log_proba(self, X: Data) -> Doubles:
        """Return the logarithm of ``predict_proba``, exact where that is near 0."""
        margins = self.decision_function(X)
        return np.column_stack([-np.logaddexp(0.0, margins), -np.logaddexp(0.0, -margins)])

    def predict(self, X: Data) -> NDArray[Any]:
        """Return the likelier class of each row."""
        positive = self.decision_function(X) > 0
        chosen: NDArray[Any] = self.classes_[positive.astype(np.intp)]
        return chosen

    def save(self, path: str | Path) -> None:
        """Write the model into the folder ``path``, for ``load`` here and for `mlless.load`; no pickle."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        notes = {
            "classes": self.classes_.tolist(),
            "names": None if names is None else names.tolist(),
            "rows": self._rows_before,
        }
        self._save(path, self._artifact(None, {}, notes))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the estimator in the folder ``path``, or one with the model of a run of `mlless train`."""
        estimator, artifact, notes = cls._load(path)
        model = artifact.description.model
        assert isinstance(model, Logistic)
        estimator.classes_ = np.array(notes.get("classes", [0, 1]))
        estimator.n_features_in_ = model.features
        if notes.get("names"):
            estimator.feature_names_in_ = np.array(notes["names"], object)
        estimator._rows_before = float(notes.get("rows", recipes.clicks_l2(1) / model.l2 if model.l2 else 0))
        estimator._settle()
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_class = False
        return tags
