"""Matrix factorisation as a scikit-learn regressor that also recommends."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import msgspec
import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from mlless import recipes
from mlless.artifact import Artifact
from mlless.data.groups import RatingsGroup
from mlless.data.ids import IdIndex, Ids, RatingIds
from mlless.data.manifest import Ratings
from mlless.data.memory import ratings_in_memory
from mlless.errors import UsageError
from mlless.estimators.base import Data, Trained, as_value_error, dataset_in
from mlless.estimators.callbacks import with_callbacks
from mlless.estimators.pairs import check_names, names_of, pairs_of, ratings_in, ratings_of
from mlless.estimators.parameters import FROM_0
from mlless.job import Factorization
from mlless.kernels.arrays import Floats
from mlless.locations import place_of
from mlless.prediction import Predictor
from mlless.ranking import Seen, Sightings
from mlless.wishes import Wishes

_ROWS_ARE_NO_USERS = (
    "A sparse matrix is for fit alone: its rows are users by their places, and a split of rows, as in "
    "cross-validation, numbers them anew. Use pairs everywhere instead: table = matrix.tocoo(), "
    "X = np.column_stack([table.row, table.col]), y = table.data."
)


@dataclass(eq=False, repr=False, kw_only=True)
class MatrixFactorization(RegressorMixin, Trained):
    """Matrix factorisation with biases, for ratings of items by users.

    ``X`` has two columns, user and item (any text, or whole numbers from 0 with any gaps), and ``y``
    the ratings. `fit` also takes a sparse matrix with a row for each user and a column for each
    item, whose stored entries are the ratings, or a partitioned data set. What is None is the default
    of `mlless.train`, see its description.

    Parameters
    ----------
    factors : int, optional
        Factors of a user or item; None is 20.
    l2 : float, optional
        The pull on a parameter for each rating it takes part in, on standardised ratings.
    {parameters}

    Attributes
    ----------
    users_, items_ : array
        Original ids, in the order of the rows of the tables.
    user_factors_, item_factors_, user_biases_, item_biases_ : array
        The tables: a rating is ``scale_.mean + scale_.deviation * (factors . factors + biases)``.
    scale_ : Ratings
        Mean and deviation of the ratings, and the limits that predictions are clipped to.
    {attributes}
    """

    _kind: ClassVar[Literal["mf", "lr"]] = "mf"
    _words: ClassVar[Mapping[str, Any]] = {
        "epochs": f"{recipes.EPOCHS['mf']}, {recipes.MF_EPOCHS_BLIND} where nothing is held out",
        "steps": recipes.LEAST_STEPS["mf"],
        "patience": 3,
        "unit": "rating units",
        "held_out": recipes.LEAST_HELD_OUT["mf"],
        "metric": "RMSE, in rating units,",
    }
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Trained._parameter_constraints,
        "factors": [Interval(Integral, 1, 255, closed="both"), None],
        "l2": [FROM_0, None],
    }

    factors: int | None = None
    l2: float | None = None

    @with_callbacks
    def fit(self, X: Data, y: Any = None) -> Self:
        """Train on the ratings ``y`` of the pairs ``X``, and return the estimator.

        ``X`` may also be a sparse matrix or a partitioned data set, without ``y``.
        """
        wishes, goes_on = self._wishes(), self._goes_on(partial=False)
        found = dataset_in(X, y)
        if found is None or goes_on:
            self._learn(X, y, wishes, goes_on, partial=False)
        else:
            if not isinstance(found.manifest.shape, Ratings):
                raise ValueError(f"{found.location}: MatrixFactorization needs ratings, found clicks")
            ids, self.scale_ = found.ids(), found.manifest.shape
            self._index = IdIndex(ids.users), IdIndex(ids.items)
            self._names: tuple[str, ...] | None = None
            self._train(found, wishes, goes_on=False, heard={"X": X, "y": y})
            self._forget_seen()
            for group in found.groups(found.manifest.train + found.manifest.validation):
                assert isinstance(group, RatingsGroup)
                self._seen.add(group.users, group.items)
        self._warn()
        return self

    @with_callbacks
    def partial_fit(self, X: Data, y: Any = None, *, max_iter: int = recipes.PARTIAL_EPOCHS["mf"]) -> Self:
        """Go on training on more ratings, in this process, and return the estimator.

        It takes ``max_iter`` epochs over them. New users and items grow the tables. The scale stays that of
        the first ratings, and its limits grow.
        """
        wishes = self._wishes(max_iter=max_iter, n_iter_no_change=None, workers=1)
        self._learn(X, y, wishes, self._goes_on(partial=True), partial=True)
        self._warn(partial=True)
        return self

    def _learn(self, X: Data, y: Any, wishes: Wishes, goes_on: bool, *, partial: bool) -> None:
        """Train on ratings in memory."""
        found = dataset_in(X, y)
        users, items, ratings = ratings_of(X, y) if found is None else ratings_in(found)
        if goes_on:
            check_names(names_of(X), self._names)
        else:
            self._index, self._names = (IdIndex(), IdIndex()), names_of(X)
        rows = self._index[0].grow(users), self._index[1].grow(items)
        ids = RatingIds(self._index[0].ids, self._index[1].ids)
        scale: Ratings | None = None
        if goes_on:
            if wishes.factors not in (None, self.item_factors_.shape[1]):
                raise ValueError(
                    f"factors is {wishes.factors}, but the model has {self.item_factors_.shape[1]}: "
                    "fit without warm_start, or a clone"
                )
            wishes = msgspec.structs.replace(wishes, factors=self.item_factors_.shape[1])
            scale = msgspec.structs.replace(
                self.scale_,
                low=min(self.scale_.low, float(ratings.min())),
                high=max(self.scale_.high, float(ratings.max())),
            )
        parting = self._parting(len(ratings), wishes.seed, partial=partial)
        dataset = ratings_in_memory(*rows, ratings, ids=ids, scale=scale, parting=parting)
        assert isinstance(dataset.manifest.shape, Ratings)
        self.scale_ = dataset.manifest.shape
        self._train(dataset, wishes, goes_on=goes_on, heard={"X": X, "y": y})
        if not goes_on:
            self._forget_seen()
        self._seen.add(*rows)

    @property
    def _ids(self) -> RatingIds:
        """The ids of the table rows that there are: more may be known after a fit that came to nothing."""
        users, items = (table.shape.rows for table in self._course.replica.tables)
        return RatingIds(self._index[0].ids[:users], self._index[1].ids[:items])

    def _forget_seen(self, loaded: Predictor | None = None) -> None:
        """Begin anew with what users have seen; before that is what those of a ``loaded`` model have seen."""
        self._seen, self._loaded = Sightings(), loaded

    def _all_seen(self) -> Seen:
        """Return what users have rated in training; UsageError if that of a loaded model is not known."""
        if self._loaded is not None:
            self._seen.add(*self._loaded.seen.pairs())
            self._loaded = None
        return self._seen.all()

    def _fitted(self, tables: dict[str, Floats]) -> dict[str, Any]:
        users, items, ids = tables["users"], tables["items"], self._ids
        return {
            "_predictor": Predictor(Artifact(self._description(), tables, ids)),
            "n_features_in_": 2,
            "users_": ids.users,
            "items_": ids.items,
            "user_factors_": users[:, :-1],
            "user_biases_": users[:, -1],
            "item_factors_": items[:, :-1],
            "item_biases_": items[:, -1],
        }

    def predict(self, X: Data) -> Floats:
        """Return the predicted rating of each pair of a user and an item.

        An unknown user or item contributes nothing. The prediction is then the mean plus the bias of the
        other one, and the mean alone where both are unknown. A sparse matrix is refused: its rows name users
        by their places, and a split of rows, as in cross-validation, changes the places.
        """
        check_is_fitted(self)
        if scipy.sparse.issparse(X):
            raise ValueError(_ROWS_ARE_NO_USERS)
        check_names(names_of(X), self._names)
        predicted: Floats = self._predictor.predict_ratings(*pairs_of(X))
        return predicted

    def score(self, X: Data, y: Any = None, sample_weight: Any = None) -> float:
        """Return R2, the share of the ratings' variance that is explained, as regressors do.

        ``X`` are pairs as in `predict`, or a data set without ``y``. For the root mean squared error use
        ``scoring="neg_root_mean_squared_error"``, or ``heldout_``.
        """
        found = dataset_in(X, y)
        if found is not None:
            users, items, y = ratings_in(found)
            X = np.column_stack([users, items])
        return float(super().score(X, y, sample_weight))

    def recommend(self, users: ArrayLike, n: int = 10, *, exclude_seen: bool = True) -> tuple[Ids, Floats]:
        """Return the ``n`` best items of each user, best first, and their scores.

        Parameters
        ----------
        users : id or sequence of ids
            An unknown user gets the items of the highest bias: those that are best for everyone.
        n : int, default 10
            How many items a user gets.
        exclude_seen : bool, default True
            Whether to leave out the items that the user has rated in training.

        Returns
        -------
        items, scores : array, array
            A row for each user. A score is the predicted rating before it is clipped to the scale of the
            ratings. Where fewer than ``n`` items are left, ids end in -1 (in "" where ids are text) and
            scores in NaN.
        """
        check_is_fitted(self)
        with as_value_error():
            seen = self._all_seen() if exclude_seen else False
            predictor: Predictor = self._predictor
            return predictor.recommend(users, n, exclude_seen=seen)

    def save(self, path: str | Path) -> None:
        """Write the model into the folder ``path``, for `load` and for `mlless.load`; nothing is pickled."""
        check_is_fitted(self)
        extras: dict[str, NDArray[np.generic]] = {}
        try:
            seen = self._all_seen()
            extras = {"seen.starts": seen.starts, "seen.items": seen.items}
        except UsageError as error:
            warnings.warn(f"what users have seen is not saved: {error}", UserWarning, stacklevel=2)
        self._save(path, self._artifact(self._ids, extras, {}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the estimator that was saved in the folder ``path``, or one with the model of a run.

        For a run of `mlless.train`, ``recommend`` reads what users have rated from the data set of the run.
        That works only if the data set is still there and the same.
        """
        estimator, artifact, _ = cls._load(path)
        model = artifact.description.model
        assert isinstance(model, Factorization)
        assert artifact.ids is not None
        estimator._index = IdIndex(artifact.ids.users), IdIndex(artifact.ids.items)
        estimator._names = None
        estimator.scale_ = Ratings(
            model.users, model.items, model.centre, model.deviation, model.low, model.high
        )
        estimator._forget_seen(Predictor(artifact, place_of(path)))
        estimator._settle()
        return estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False  # a sparse matrix and a data set hold the ratings
        return tags
