"""PURE: scores of rows by the tables of a trained model."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlless.artifact import Artifact
from mlless.data.ids import IdIndex, Ids, Rows
from mlless.errors import DatasetError, UsageError
from mlless.job import Factorization, Logistic
from mlless.kernels.arrays import Floats
from mlless.ranking import Seen, top_items

_BLOCK = 1 << 16  # rows scored at a time: bounds the memory of gathered factors


class RatingsScorer:
    """Scores users and items with a factorisation's tables."""

    def __init__(self, artifact: Artifact) -> None:
        """Take a model of ratings; UsageError if it is another."""
        model, ids = artifact.description.model, artifact.ids
        if not isinstance(model, Factorization) or ids is None:
            raise UsageError(
                "this model neither predicts ratings nor recommends",
                expected="a model of ratings (mf)",
                found="one of clicks (lr)",
            )
        self._model, self.ids = model, ids
        self.users, self.items = IdIndex(ids.users), IdIndex(ids.items)
        # The last row is all zeros and stands for whoever is unknown: index -1.
        self._p = np.vstack([artifact.tables["users"], np.zeros((1, model.factors + 1), np.float32)])
        self._q = np.vstack([artifact.tables["items"], np.zeros((1, model.factors + 1), np.float32)])

    def find(self, users: Ids, items: Ids) -> tuple[Rows, Rows]:
        """Return the rows of users and items, -1 for the unknown."""
        return self.users.find(users), self.items.find(items)

    def scored(self, users: Rows, items: Rows) -> tuple[NDArray[np.float64], int]:
        """Return the rating of each pair of rows, and how many pairs are not wholly known."""
        scores = np.empty(len(users), np.float32)
        for at in range(0, len(users), _BLOCK):
            p, q = self._p[users[at : at + _BLOCK]], self._q[items[at : at + _BLOCK]]
            product = np.einsum("nk,nk->n", p[:, :-1], q[:, :-1])
            scores[at : at + _BLOCK] = product + p[:, -1] + q[:, -1]
        return self.clipped(self._rating(scores)), int(((users < 0) | (items < 0)).sum())

    def recommend(self, users: Ids, n: int, seen: Seen | None) -> tuple[Ids, Floats]:
        """Return for each user the ids of the ``n`` best items and their scores, as a predictor does."""
        best, scores = top_items(self._p, self._q[:-1], rows=self.users.find(users), n=n, seen=seen)
        none = "" if self.ids.items.dtype == np.object_ else -1
        return np.where(best >= 0, self.ids.items[best], none), self._rating(scores).astype(np.float32)

    def seen_from(self, starts: NDArray[np.generic], items: NDArray[np.generic]) -> Seen:
        """Return what the arrays of a model file say has been seen; DatasetError if they say nonsense."""
        try:
            seen = Seen(starts.astype(np.int64), items.astype(np.uint32))
            if len(seen.items) and seen.items.max() >= self._model.items:
                raise ValueError(f"item {seen.items.max()}")
        except ValueError as error:
            raise DatasetError(
                "what users have seen is damaged", found=str(error), cure="train again"
            ) from error
        return seen

    def _rating(self, scores: Floats) -> NDArray[np.float64]:
        rating: NDArray[np.float64] = self._model.centre + self._model.deviation * scores.astype(np.float64)
        return rating

    def clipped(self, ratings: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the ratings within their scale."""
        return np.clip(ratings, self._model.low, self._model.high)


def margins_of(
    artifact: Artifact, row_starts: ArrayLike, features: ArrayLike, values: ArrayLike | None
) -> tuple[NDArray[np.float64], int]:
    """Return the log-odds of CSR rows, and how many values are of features that the model does not know."""
    if not isinstance(artifact.description.model, Logistic):
        raise UsageError("this model does not predict clicks", expected="a model of clicks (lr)", found="mf")
    starts, index = np.asarray(row_starts, np.int64), np.asarray(features, np.int64)
    if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(index) or (np.diff(starts) < 0).any():
        raise UsageError("not the starts of rows", expected=f"from 0 to {len(index)}, not falling")
    if index.min(initial=0) < 0:
        raise UsageError("a feature index", expected="from 0", found=str(index.min()))
    table = artifact.tables["features"][:, 0]
    known = index < len(table)
    terms = np.where(known, table[np.where(known, index, 0)], 0.0).astype(np.float64)
    if values is not None:
        terms *= np.asarray(values, np.float64)
    rows = len(starts) - 1  # each summed by itself: a row's score does not depend on others
    of_row = np.repeat(np.arange(rows), np.diff(starts))
    sums = np.bincount(of_row, terms, minlength=rows).astype(np.float64)
    return sums + float(artifact.tables["intercept"][0, 0]), int(len(index) - known.sum())
