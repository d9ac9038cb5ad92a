"""PURE but for opening files: scores with a trained model; no job needed.

Users and items are named by their original ids. An unknown user or item contributes nothing: the
prediction falls back on the other's bias, and on the mean rating where both are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlless.artifact import MODEL, Artifact, read_artifact
from mlless.channels.opening import open_objects
from mlless.data.batches import RatingsBatch
from mlless.data.dataset import Dataset, dataset_at
from mlless.data.ids import NO_IDS, IdIndex, Ids, RatingIds, Rows, ids_of
from mlless.data.manifest import MANIFEST, File
from mlless.data.readers import (
    Reading,
    ReadingOptions,
    Source,
    Sources,
    open_source,
    read_clicks,
    read_columns,
    read_ratings,
)
from mlless.data.readers.parts import STANDARD_INPUT
from mlless.data.rows import Chunk, ClicksRows
from mlless.errors import InputError, UsageError
from mlless.job import Factorization, Logistic
from mlless.kernels.arrays import Floats
from mlless.locations import WEB, Location, place_of, scheme_of
from mlless.models.logistic import area_under_curve, probabilities
from mlless.ranking import Seen, top_items

Part = Literal["all", "train", "validation"]
_BLOCK = 1 << 16  # rows scored at a time: bounds the memory of gathered factors
_USERS = 1 << 12  # users recommended to at a time


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of a run of rows.

    ``keys`` say which row each is of: original users and items, or row numbers from 0. ``done`` is
    the share of the source that is read, None where that is not known; ``skipped`` malformed lines
    were left out since the run before.
    """

    keys: tuple[NDArray[np.integer] | Ids, ...]
    values: Floats
    done: float | None
    skipped: int = 0

    def csv(self) -> str:
        """Return the rows as lines of CSV."""
        line = "{}," * len(self.keys) + "{:.7g}\n"
        return "".join(map(line.format, *(key.tolist() for key in self.keys), self.values.tolist()))


class Predictor:
    """A trained model."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self._factorization: _Factorization | None = None
        if artifact.ids is not None:
            self._factorization = _Factorization(artifact)

    @property
    def kind(self) -> str:
        """``mf`` or ``lr``."""
        return "lr" if self._factorization is None else "mf"

    @property
    def columns(self) -> tuple[str, ...]:
        """What the keys and values of ``predict`` are called in a table."""
        return ("row", "prediction") if self._factorization is None else ("user", "item", "prediction")

    def predict(
        self, source: Sources, *, format: str | None = None, **options: Unpack[ReadingOptions]
    ) -> Iterator[Predictions]:
        """Return predictions for all rows of ``source``, a run of rows at a time.

        ``source`` is one or more raw sources, as for ``partition``, or the place of a data set. Raw rows
        come in their order, and need no ratings or labels: these are not read. What is predicted is a rating
        within the rating scale, or the probability of a click. ``options`` are the fields of `Reading`.
        """
        if (dataset := as_dataset(source)) is not None:
            return self._predict_dataset(self._fitting(dataset))
        reading = Reading(**options)
        origin = self._opened(source, format, reading)
        if self._factorization is None:
            return self._predict_clicks(origin, reading)
        return self._predict_ratings(origin, reading)

    def _opened(self, source: Sources, format: str | None, reading: Reading) -> Source:
        columns = self.artifact.description.columns
        known = columns.format if columns else "ratings" if reading.columns else None
        origin = open_source(source, format=format or known)
        kind = "ratings" if origin.format == "ratings" else "clicks"
        if kind != self._wanted:
            raise UsageError(
                "model and source do not fit",
                where=origin.name,
                expected=self._wanted,
                found=kind,
                cure="if it was taken for something else than it is, give --format",
            )
        if origin.format in ("criteo", "columns") and columns is None:
            raise UsageError(
                "the model does not know what its features are made of",
                where=origin.name,
                expected="a model trained on a table of clicks",
                found="one trained on LIBSVM",
            )
        return origin

    def _predict_ratings(self, source: Source, reading: Reading) -> Iterator[Predictions]:
        for chunk in read_ratings(source, reading, rated=False):
            pairs = chunk.rows.users, chunk.rows.items
            yield Predictions(pairs, self.predict_ratings(*pairs), source.progress(chunk.done), chunk.skipped)

    def _predict_clicks(self, source: Source, reading: Reading) -> Iterator[Predictions]:
        for chunk in self._clicks_of(source, reading, labelled=False):
            rows = chunk.rows
            values = self.predict_clicks(rows.starts, rows.indices, rows.values)
            yield Predictions((rows.numbers,), values, source.progress(chunk.done), chunk.skipped)

    def _clicks_of(self, source: Source, reading: Reading, *, labelled: bool) -> Iterator[Chunk[ClicksRows]]:
        """Yield the rows of a raw file with the model's features."""
        description = self.artifact.description
        assert isinstance(description.model, Logistic)
        if source.format == "libsvm":
            highest = description.model.features - 1
            yield from read_clicks(source, reading, labelled=labelled, highest=highest)
            return
        columns = description.columns
        assert columns is not None
        for chunk in read_columns(source, columns, reading, labelled=labelled):
            yield chunk.with_rows(columns.encode(chunk.rows))

    def _predict_dataset(self, dataset: Dataset) -> Iterator[Predictions]:
        ids = dataset.ids() if self._factorization is not None else None
        done = 0
        for batch in dataset.batches(files_of(dataset, "all")):
            done += len(batch)
            keys: tuple[NDArray[np.integer] | Ids, ...]
            if isinstance(batch, RatingsBatch):
                assert ids is not None
                pairs = original_ids(batch, ids)
                keys, values = pairs, self.predict_ratings(*pairs)
            else:
                features = batch.features[batch.feature_index]
                keys, values = (batch.rows,), self.predict_clicks(batch.row_starts, features, batch.values)
            yield Predictions(keys, values, done / dataset.manifest.rows)

    def predict_ratings(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """Return the predicted rating of each (user, item), both original ids, within the rating scale."""
        if self._factorization is None:
            raise UsageError(
                "this model does not predict ratings", expected="a model of ratings (mf)", found="lr"
            )
        wide_users, wide_items = ids_of(users, "users"), ids_of(items, "items")
        if wide_users.shape != wide_items.shape or wide_users.ndim != 1:
            raise UsageError(
                "users and items must pair up",
                expected="two sequences of one length",
                found=f"{wide_users.shape} and {wide_items.shape}",
            )
        return self._factorization.predict(wide_users, wide_items)

    def recommend(self, users: ArrayLike, n: int = 10, *, seen: Seen | None = None) -> tuple[Ids, Floats]:
        """Return for each user the original ids of the ``n`` best items, best first, and their ratings.

        Items that a user has ``seen`` are left out; where fewer than ``n`` are left, the ids end in -1
        and the ratings in NaN. An unknown user gets the items that are best for everyone.
        """
        if self._factorization is None:
            raise UsageError("this model does not recommend", expected="a model of ratings (mf)", found="lr")
        if n < 1:
            raise UsageError("number of recommendations", expected="at least 1", found=str(n))
        return self._factorization.recommend(ids_of(users, "users"), n, seen)

    def all_users(self) -> Iterator[tuple[Ids, float]]:
        """Yield the original ids of all users of the model in blocks, with the share that is through."""
        users = self.artifact.ids.users if self.artifact.ids is not None else NO_IDS
        for at in range(0, len(users), _USERS):
            yield users[at : at + _USERS], min((at + _USERS) / len(users), 1.0)

    def seen_in(self, dataset: Dataset) -> Seen:
        """Return what the model's users have rated in a data set, in all of its parts."""
        if self._factorization is None:
            raise UsageError("this model does not recommend", expected="a model of ratings (mf)", found="lr")
        ids = self._fitting(dataset).ids()
        users, items = self._factorization.rows(ids.users, ids.items)
        pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        for batch in dataset.batches(files_of(dataset, "all")):
            assert isinstance(batch, RatingsBatch)
            user_rows, item_rows = batch.rows()
            pairs.append((users[user_rows], items[item_rows]))
        seen_by, seen = (np.concatenate(column) for column in zip(*pairs, strict=True))
        known = (seen_by >= 0) & (seen >= 0)
        return Seen.of(seen_by[known], seen[known], count=len(self.artifact.tables["users"]))

    def predict_clicks(
        self, row_starts: ArrayLike, features: ArrayLike, values: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of a click for CSR rows.

        Row n holds the entries ``row_starts[n]:row_starts[n + 1]`` of ``features`` (as in the source
        file) and ``values`` (all 1 if None).
        """
        return probabilities(self.margins(row_starts, features, values)).astype(np.float32)

    def margins(
        self, row_starts: ArrayLike, features: ArrayLike, values: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Return the log-odds of a click for CSR rows, as in ``predict_clicks``."""
        model = self.artifact.description.model
        if not isinstance(model, Logistic):
            raise UsageError(
                "this model does not predict clicks", expected="a model of clicks (lr)", found="mf"
            )
        starts, index = np.asarray(row_starts, np.int64), np.asarray(features, np.int64)
        if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(index) or (np.diff(starts) < 0).any():
            raise UsageError("not the starts of rows", expected=f"from 0 to {len(index)}, not falling")
        if len(index) and not 0 <= index.min() <= index.max() < model.features:
            raise UsageError(
                "a feature index beyond the model's dimension",
                expected=f"0 to {model.features - 1}",
                found=f"{index.min()} to {index.max()}",
                cure="score the features the model was trained on",
            )
        terms = self.artifact.tables["features"][index, 0].astype(np.float64)
        if values is not None:
            terms *= np.asarray(values, np.float64)
        rows = len(starts) - 1  # each summed by itself: a row's score does not depend on others
        of_row = np.repeat(np.arange(rows), np.diff(starts))
        sums = np.bincount(of_row, terms, minlength=rows).astype(np.float64)
        margins: NDArray[np.float64] = sums + float(self.artifact.tables["intercept"][0, 0])
        return margins

    def evaluate(self, dataset: Dataset, part: Part | None = None) -> dict[str, float]:
        """Return ``rmse``, or ``log_loss`` and ``auc``, on a data set, and the number of ``rows``.

        Rows are matched by original ids. ``part`` None takes the held-out part of the very data set
        the model was trained on, and every row of any other.
        """
        files = files_of(self._fitting(dataset), part or self.natural_part(dataset))
        if not files:
            raise UsageError("no rows to evaluate on", where=dataset.location, cure="choose another --part")
        return self._metrics(self.score(dataset, files))

    def evaluate_raw(
        self, source: Sources, *, format: str | None = None, **options: Unpack[ReadingOptions]
    ) -> dict[str, float]:
        """Return the metrics of ``evaluate`` on the rows of raw sources; see `predict`.

        Also how many malformed rows were ``skipped``, and how many ``unlabelled`` ones left out.
        """
        reading = Reading(**options)
        origin = self._opened(source, format, reading)
        skipped = unlabelled = 0

        def scored() -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
            nonlocal skipped, unlabelled
            if self._factorization is not None:
                for chunk in read_ratings(origin, reading):
                    skipped, unlabelled = skipped + chunk.skipped, unlabelled + chunk.unlabelled
                    assert chunk.rows.ratings is not None
                    predicted = self._factorization.predict(chunk.rows.users, chunk.rows.items)
                    yield chunk.rows.ratings.astype(np.float64), predicted.astype(np.float64)
                return
            for clicks in self._clicks_of(origin, reading, labelled=True):
                skipped, unlabelled = skipped + clicks.skipped, unlabelled + clicks.unlabelled
                rows = clicks.rows
                yield rows.labels.astype(np.float64), self.margins(rows.starts, rows.indices, rows.values)

        metrics = self._metrics(scored())
        if not metrics["rows"]:
            raise InputError("no rows", where=origin.name, found=f"{unlabelled} without a rating or label")
        return {**metrics, "skipped": skipped, "unlabelled": unlabelled}

    def _metrics(self, scored: Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> dict[str, float]:
        """Return the metrics of targets and scores, and the number of rows."""
        if self._factorization is not None:
            squares, rows = 0.0, 0
            for target, score in scored:
                squares, rows = squares + float(np.square(target - score).sum()), rows + len(target)
            return {"rmse": math.sqrt(squares / max(rows, 1)), "rows": rows}
        # The exact AUC ranks all rows, so their scores have to be held: 16 bytes a row.
        held = [(np.zeros(0), np.zeros(0)), *scored]
        targets = np.concatenate([target for target, _ in held])
        scores = np.concatenate([score for _, score in held])
        loss = float((np.logaddexp(0.0, scores) - targets * scores).sum()) / max(len(scores), 1)
        auc = area_under_curve(targets > 0, scores.astype(np.float32))
        return {"log_loss": loss, "auc": auc, "rows": len(scores)}

    @property
    def _wanted(self) -> str:
        return "clicks" if self._factorization is None else "ratings"

    def _fitting(self, dataset: Dataset) -> Dataset:
        if dataset.manifest.kind != self._wanted:
            raise UsageError(
                "model and data set do not fit",
                where=dataset.location,
                expected=self._wanted,
                found=dataset.manifest.kind,
            )
        return dataset

    def natural_part(self, dataset: Dataset) -> Part:
        """Return which part of a data set tells how good the model is."""
        own = dataset.manifest.fingerprint == self.artifact.description.trained_on
        return "validation" if own and dataset.manifest.validation else "all"

    def score(
        self, dataset: Dataset, files: Iterable[File]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Yield targets (ratings, labels) and scores (ratings, log-odds) of each mini-batch."""
        ids = dataset.ids() if self._factorization is not None else None
        for batch in dataset.batches(files):
            if isinstance(batch, RatingsBatch):
                assert ids is not None
                assert self._factorization is not None
                users, items = original_ids(batch, ids)
                yield (
                    batch.ratings.astype(np.float64),
                    self._factorization.predict(users, items).astype(np.float64),
                )
            else:
                features = batch.features.astype(np.int64)[batch.feature_index]
                yield batch.labels.astype(np.float64), self.margins(batch.row_starts, features, batch.values)


class _Factorization:
    """Scores (user, item) pairs with a factorisation's tables."""

    def __init__(self, artifact: Artifact) -> None:
        model, ids = artifact.description.model, artifact.ids
        assert isinstance(model, Factorization)
        assert ids is not None
        self._model, self._item_ids = model, ids.items
        self._users, self._items = IdIndex(ids.users), IdIndex(ids.items)
        # The last row is all zeros and stands for whoever is unknown: index -1.
        self._p = np.vstack([artifact.tables["users"], np.zeros((1, model.factors + 1), np.float32)])
        self._q = np.vstack([artifact.tables["items"], np.zeros((1, model.factors + 1), np.float32)])

    def rows(self, users: Ids, items: Ids) -> tuple[Rows, Rows]:
        return self._users.find(users), self._items.find(items)

    def predict(self, users: Ids, items: Ids) -> Floats:
        rows_p, rows_q = self.rows(users, items)
        scores = np.empty(len(users), np.float32)
        for at in range(0, len(users), _BLOCK):
            p, q = self._p[rows_p[at : at + _BLOCK]], self._q[rows_q[at : at + _BLOCK]]
            product = np.einsum("nk,nk->n", p[:, :-1], q[:, :-1])
            scores[at : at + _BLOCK] = product + p[:, -1] + q[:, -1]
        return self._ratings(scores)

    def recommend(self, users: Ids, n: int, seen: Seen | None) -> tuple[Ids, Floats]:
        rows = self._users.find(users)
        best, scores = top_items(self._p, self._q[:-1], rows=rows, n=n, seen=seen)
        left = -1 if self._item_ids.dtype == np.int64 else ""
        return np.where(best >= 0, self._item_ids[best], left), self._ratings(scores)

    def _ratings(self, scores: Floats) -> Floats:
        rating = self._model.centre + self._model.deviation * scores
        clipped: Floats = np.clip(rating, self._model.low, self._model.high).astype(np.float32)
        return clipped


def original_ids(batch: RatingsBatch, ids: RatingIds) -> tuple[Ids, Ids]:
    """Return the original user and item of each rating in a batch."""
    users, items = batch.rows()
    return ids.users[users], ids.items[items]


def files_of(dataset: Dataset, part: Part) -> tuple[File, ...]:
    """Return the mini-batch files of a part of a data set."""
    manifest = dataset.manifest
    return {
        "train": manifest.train,
        "validation": manifest.validation,
        "all": manifest.train + manifest.validation,
    }[part]


def as_dataset(source: Sources) -> Dataset | None:
    """Return the data set at ``source``; None if there are raw rows, or nothing. DatasetError for a run."""
    given = [source] if isinstance(source, str | Path) else source
    if len(given) != 1 or given[0] == STANDARD_INPUT or scheme_of(given[0]) in WEB:
        return None
    place = place_of(given[0])
    return dataset_at(place) if {MANIFEST, MODEL} & open_objects(place).names() else None


def load(run: Location) -> Predictor:
    """Return the model of a run."""
    return Predictor(read_artifact(place_of(run)))


def evaluate(
    run: Location,
    dataset: Sources,
    part: Part | None = None,
    *,
    format: str | None = None,
    **options: Unpack[ReadingOptions],
) -> dict[str, float]:
    """Return the metrics of a run's model on a data set, or on raw rows as for ``partition``.

    See ``Predictor.evaluate``; for raw rows, which are not in parts, ``Predictor.evaluate_raw``.
    """
    predictor, found = load(run), as_dataset(dataset)
    if found is not None:
        return predictor.evaluate(found, part)
    if part not in (None, "all"):
        raise UsageError("raw rows are not in parts", found=f"part {part}", cure="leave it out")
    return predictor.evaluate_raw(dataset, format=format, **options)
