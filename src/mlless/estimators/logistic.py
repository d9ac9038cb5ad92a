"""Sparse logistic regression as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mlless import recipes
from mlless.data.dataset import Dataset
from mlless.data.features import FeatureMap
from mlless.data.findings import check_two_classes
from mlless.data.manifest import Clicks
from mlless.data.memory import clicks_in_memory
from mlless.data.preparation import with_scales
from mlless.estimators.base import Data, Trained, as_value_error, dataset_in
from mlless.estimators.callbacks import with_callbacks
from mlless.estimators.frames import classes_of, columns_of, rows_of_frame, with_labels
from mlless.estimators.labelled import labels_of, matrix_of, relative, rows_of, two_classes, weights_of
from mlless.estimators.parameters import FROM_0, plain
from mlless.job import JobSpec, Logistic
from mlless.models.logistic import probabilities
from mlless.wishes import Wishes

Doubles = NDArray[np.float64]
_FLOATS = [np.float64, np.float32]


@dataclass(eq=False, repr=False, kw_only=True)
class LogisticRegression(ClassifierMixin, Trained):
    """Binary logistic regression for wide sparse data, trained in mini-batches.

    ``X`` is an array, a CSR matrix, a frame or a partitioned data set. A frame with columns of text or
    categories becomes the same features as a file: categories are hashed, numbers scaled. Else features
    should be of similar scale, as for every method of stochastic gradients; sparse indicators are. What is
    None is the default of `mlless.train`, see its description.

    Parameters
    ----------
    l2 : float, optional
        L2 strength on the mean log loss; None is 8 / rows (or the sum of their weights). In terms of
        scikit-learn's ``C`` it is ``1 / (C * rows)``.
    class_weight : dict or "balanced", optional
        How much the rows of a class count: a number for each class in a dict, 1 where there is none;
        or "balanced", ``rows / (2 * rows of the class)``.
    {parameters}

    Attributes
    ----------
    classes_, coef_, intercept_, n_features_in_, feature_names_in_
        As in scikit-learn. Of a frame with text the columns are counted and named, and ``coef_`` has the
        features that they become.
    {attributes}
    """

    _kind: ClassVar[Literal["mf", "lr"]] = "lr"
    _words: ClassVar[Mapping[str, Any]] = {
        "epochs": recipes.EPOCHS["lr"],
        "steps": recipes.LEAST_STEPS["lr"],
        "patience": 2,
        "unit": "log loss",
        "held_out": recipes.LEAST_HELD_OUT["lr"],
        "metric": "log loss",
    }
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Trained._parameter_constraints,
        "l2": [FROM_0, None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    l2: float | None = None
    class_weight: Mapping[Any, float] | str | None = None
    _rows_before: float = field(init=False)

    @with_callbacks
    def fit(self, X: Data, y: Any = None, sample_weight: Any = None) -> Self:
        """Train on rows ``X`` with labels ``y`` of two classes, and return the estimator.

        ``X`` may also be a partitioned data set, without ``y``. A row with a weight of 2 counts like two
        rows.
        """
        wishes, goes_on = self._wishes(), self._goes_on(partial=False)
        if not goes_on:
            self.__dict__.pop("classes_", None)
        self._learn(X, y, sample_weight, wishes, goes_on, partial=False)
        self._warn()
        return self

    @with_callbacks
    def partial_fit(
        self,
        X: Data,
        y: Any = None,
        classes: Any = None,
        sample_weight: Any = None,
        *,
        max_iter: int = recipes.PARTIAL_EPOCHS["lr"],
    ) -> Self:
        """Go on training on more rows, in this process, and return the estimator.

        It takes ``max_iter`` epochs over them. ``classes`` names both classes in the first call if ``y`` does
        not hold both.
        """
        wishes = self._wishes(max_iter=max_iter, n_iter_no_change=None, workers=1)
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" is not supported for partial_fit: a part does not tell how rare a '
                "class is. Give the weights of all rows as a dict, with "
                'sklearn.utils.class_weight.compute_class_weight("balanced", classes=classes, y=y).'
            )
        goes_on = self._goes_on(partial=True)
        if not goes_on:
            self.__dict__.pop("classes_", None)
            if classes is not None:
                self.classes_ = two_classes(np.unique(classes))
        self._learn(X, y, sample_weight, wishes, goes_on, partial=True)
        self._warn(partial=True)
        return self

    def _learn(self, X: Data, y: Any, weights: Any, wishes: Wishes, goes_on: bool, *, partial: bool) -> None:
        """Train; the default L2 strength follows from all rows so far, each counting as much as it weighs."""
        found = dataset_in(X, y)
        if found is None:
            dataset, total = self._dataset(X, y, weights, wishes.seed, goes_on=goes_on, partial=partial)
        elif weights is not None or self.class_weight is not None:
            raise ValueError("sample_weight and class_weight are for arrays and frames, not for a data set")
        else:
            if not partial:
                with as_value_error():
                    check_two_classes(found.manifest, found.location)
            dataset, total = self._taken(found, goes_on=goes_on), float(found.manifest.rows)
        share = sum(file.rows for file in dataset.manifest.train) / dataset.manifest.rows
        rows = total * share + (self._rows_before if goes_on else 0.0)

        def change(spec: JobSpec) -> JobSpec:
            """Return the job with the L2 strength for all rows so far, unless one is given."""
            if wishes.l2 is not None:
                return spec
            model = msgspec.structs.replace(spec.model, l2=recipes.clicks_l2(rows))
            return msgspec.structs.replace(spec, model=model)

        metadata = {} if weights is None else {"sample_weight": weights}
        heard = {"X": X, "y": y, "metadata": metadata}
        self._train(dataset, wishes, goes_on=goes_on, heard=heard, change=change)
        self._rows_before = rows

    def _dataset(
        self, X: Data, y: Any, weights: Any, seed: int, *, goes_on: bool, partial: bool
    ) -> tuple[Dataset, float]:
        """Return arrays or a frame as a data set, and the sum of the rows' weights."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        columns = self._columns if goes_on else columns_of(X, y)
        X, y = self._checked(X, y, columns, reset=not goes_on)
        weights = weights_of(y, weights, self.class_weight)
        if weights is not None:
            kept = np.flatnonzero(weights)
            X, y, weights = X.take(kept) if columns else X[kept], y[kept], weights[kept]
        if not hasattr(self, "classes_"):
            self.classes_ = two_classes(np.unique(y), y)
        labels, parting = labels_of(y, self.classes_), self._parting(len(y), seed, partial=partial)
        if columns is None:
            rows, features = rows_of(X, labels), self.n_features_in_
        else:
            columns = with_labels(columns, self.classes_)
            columns = with_scales(columns, [X.take(np.flatnonzero(~parting.held_out(X)))])
            rows, features = replace(columns.encode(X), labels=labels), columns.features
        dataset = clicks_in_memory(
            rows, relative(weights), features=features, parting=parting, columns=columns
        )
        return dataset, float(len(y) if weights is None else weights.sum())

    def _checked(
        self, X: Data, y: Any, columns: FeatureMap | None, *, reset: bool
    ) -> tuple[Any, NDArray[Any]]:
        """Return the rows, those of a frame with ``columns`` as `ColumnRows`, and their targets."""
        if columns is None:
            X, y = validate_data(
                self, X, y, accept_sparse="csr", accept_large_sparse=True, dtype=_FLOATS, reset=reset
            )
        else:
            validate_data(self, X, y, skip_check_array=True, reset=reset)
            X, y = rows_of_frame(X, columns), column_or_1d(y, warn=True)
            check_consistent_length(X, y)
            assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        return X, y

    def _taken(self, dataset: Dataset, *, goes_on: bool) -> Dataset:
        """Return a partitioned data set of clicks; its classes are 0 and 1 unless its labels have names."""
        shape = dataset.manifest.shape
        if not isinstance(shape, Clicks):
            raise ValueError(f"{dataset.location}: LogisticRegression needs clicks, found ratings")
        if goes_on and (shape.table_rows, shape.columns) != (self.coef_.shape[1], self._columns):
            raise ValueError(
                f"{dataset.location}: expected the {self.coef_.shape[1]} features of the model, found "
                f"{shape.table_rows}, or other columns or scales: partition it like the first, with --like"
            )
        self.classes_ = classes_of(shape.columns)
        self._name_features(shape.table_rows, shape.columns)
        return dataset

    def _name_features(self, features: int, columns: FeatureMap | None) -> None:
        """Note what a model without a frame at hand takes: ``features``, or frames with ``columns``."""
        self.__dict__.pop("feature_names_in_", None)
        self.n_features_in_ = features
        if columns is not None:
            names = (*columns.layout.numeric, *columns.layout.categorical)
            self.feature_names_in_, self.n_features_in_ = np.array(names, object), len(names)

    def _fitted(self, tables: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
        return {
            "classes_": self.classes_,
            "n_features_in_": self.n_features_in_,
            "_columns": self._columns,
            "coef_": tables["features"].reshape(1, -1),
            "intercept_": tables["intercept"].reshape(1),
        }

    def decision_function(self, X: Data) -> Doubles:
        """Return the log-odds of ``classes_[1]`` for each row."""
        check_is_fitted(self)
        if self._columns is None:
            X = validate_data(self, X, accept_sparse="csr", dtype=_FLOATS, reset=False)
        else:
            validate_data(self, X, skip_check_array=True, reset=False)
            X = matrix_of(self._columns.encode(rows_of_frame(X, self._columns)), self.coef_.shape[1])
        # A float64 copy of one column: the sums then do not depend on how rows are grouped.
        scores: Doubles = X @ self.coef_[0].astype(np.float64) + float(self.intercept_[0])
        return np.asarray(scores, np.float64)

    def predict_proba(self, X: Data) -> Doubles:
        """Return the probability of each class for each row."""
        positive = probabilities(self.decision_function(X))
        return np.column_stack([1.0 - positive, positive])

    def predict_log_proba(self, X: Data) -> Doubles:
        """Return the logarithm of ``predict_proba``; it is exact also for tiny probabilities."""
        margins = self.decision_function(X)
        return np.column_stack([-np.logaddexp(0.0, margins), -np.logaddexp(0.0, -margins)])

    def predict(self, X: Data) -> NDArray[Any]:
        """Return the more probable class of each row."""
        positive = self.decision_function(X) > 0
        chosen: NDArray[Any] = self.classes_[positive.astype(np.intp)]
        return chosen

    def save(self, path: str | Path) -> None:
        """Write the model into the folder ``path``, for `load` and for `mlless.load`; nothing is pickled."""
        check_is_fitted(self)
        names, weights = getattr(self, "feature_names_in_", None), self.class_weight
        by_class = weights.items() if isinstance(weights, Mapping) else ()
        notes = {
            "classes": self.classes_.tolist(),
            "names": None if names is None else names.tolist(),
            "rows": self._rows_before,
            "class_weight": [[plain(of), plain(one)] for of, one in by_class],
        }
        self._save(path, self._artifact(None, {}, notes))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the estimator that was saved in the folder ``path``, or one with the model of a run."""
        estimator, artifact, notes = cls._load(path)
        model = artifact.description.model
        assert isinstance(model, Logistic)
        estimator.classes_ = np.array(notes["classes"]) if notes else classes_of(estimator._columns)
        estimator._name_features(model.features, estimator._columns)
        if notes:  # a frame may have had no names
            estimator.__dict__.pop("feature_names_in_", None)
        if notes.get("names"):
            estimator.feature_names_in_ = np.array(notes["names"], object)
        estimator._rows_before = float(notes.get("rows", recipes.clicks_l2(1) / model.l2 if model.l2 else 0))
        if notes.get("class_weight"):
            estimator.class_weight = dict(notes["class_weight"])
        estimator._settle()
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_class = False
        return tags
