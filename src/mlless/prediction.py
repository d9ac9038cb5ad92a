"""PURE but for opening files: scores with a trained model; no job needed.

Users and items are named by their original ids. An unknown user or item contributes nothing: the
prediction falls back on the other's bias, and on the mean rating where both are unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Unpack

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlless.artifact import MODEL, Artifact, read_artifact
from mlless.channels.opening import open_objects
from mlless.data.dataset import Dataset, dataset_at, open_dataset
from mlless.data.groups import RatingsGroup
from mlless.data.ids import Ids, ids_of
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
    reading_of,
)
from mlless.data.readers.finding import listed
from mlless.data.readers.parts import STANDARD_INPUT
from mlless.data.rows import Chunk, ClicksRows
from mlless.errors import DatasetError, InputError, MLLessError, UsageError
from mlless.job import Logistic
from mlless.kernels.arrays import Floats
from mlless.locations import WEB, Location, Place, place_of, scheme_of
from mlless.models.logistic import area_under_curve, probabilities
from mlless.options import knows_options
from mlless.ranking import Seen, Sightings
from mlless.scoring import RatingsScorer, margins_of

Part = Literal["all", "train", "validation"]
_USERS = 1 << 12  # users recommended to at a time
_TO_QUOTE = re.compile(r'[",\r\n]')


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions for some of the rows.

    Attributes
    ----------
    keys : tuple of arrays
        Which row each prediction is of: its original user and item, or its number in the source from 0.
    values : array
        The predictions.
    done : float or None
        The share of the source that is read so far, None where its size is not known.
    skipped : int
        Malformed lines that were left out since the predictions before.
    unknown : int
        For ratings: rows whose user or item the model does not know. For clicks: values of features that it
        does not know.
    """

    keys: tuple[NDArray[np.integer] | Ids, ...]
    values: Floats
    done: float | None
    skipped: int = 0
    unknown: int = 0

    def csv(self) -> str:
        """Return the rows as lines of CSV."""
        line = "{}," * len(self.keys) + "{:.7g}\n"
        return "".join(map(line.format, *map(csv_fields, self.keys), self.values.tolist()))


def csv_fields(keys: NDArray[np.integer] | Ids) -> list[Any]:
    """Return ids or numbers as fields of CSV, text quoted where it needs it."""
    fields = keys.tolist()
    return list(map(_csv_field, fields)) if keys.dtype == np.object_ else fields


def _csv_field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _TO_QUOTE.search(text) else text


@dataclass(frozen=True, slots=True)
class _Scored:
    """A run of rows with targets (ratings, labels) if they have any.

    ``scored`` are scores (ratings, log-odds), and how much the model does not know of the rows. The rest is
    as in `Predictions`; ``unlabelled`` rows were left out, too.
    """

    keys: tuple[NDArray[np.integer] | Ids, ...]
    targets: NDArray[np.generic] | None
    scored: tuple[NDArray[np.float64], int]
    done: float | None
    skipped: int = 0
    unlabelled: int = 0


class _Job(msgspec.Struct):
    dataset: str


class _Summary(msgspec.Struct):
    """What is wanted of a run's ``summary.json``."""

    job: _Job


class Predictor:
    """A trained model that scores rows, predicts ratings or clicks, and recommends items.

    `mlless.load` and ``Run.model`` return one. ``run`` is the place of the run that it was read from, None
    for a model that was never in a file.
    """

    def __init__(self, artifact: Artifact, run: Place | None = None) -> None:
        self.artifact, self.run = artifact, run

    def __repr__(self) -> str:
        model = self.artifact.description.model
        if isinstance(model, Logistic):
            what = f"features={model.features}"
        else:
            what = f"factors={model.factors}, users={model.users}, items={model.items}"
        return f"<Predictor {self.kind}: {what}{f'; from {self.run}' if self.run else ''}>"

    @property
    def kind(self) -> str:
        """``mf`` or ``lr``."""
        return "lr" if self.artifact.ids is None else "mf"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that ``predict`` fills: of its keys, then of its values."""
        return ("row", "prediction") if self.kind == "lr" else ("user", "item", "prediction")

    @knows_options(ReadingOptions)
    def predict(
        self, source: Sources, *, format: str | None = None, **options: Unpack[ReadingOptions]
    ) -> Iterator[Predictions]:
        """Yield predictions for all rows of ``source``, some thousand rows at a time.

        For ratings a prediction is a rating within the scale of the ratings. For clicks it is the probability
        of a click.

        Parameters
        ----------
        source : str, path, or a list of these
            One or more raw sources, as `mlless.partition` takes them, or the place of a data set. Ratings and
            labels are not needed and not read.
        format : str, optional
            What raw sources hold. By default it is the format that the model was trained on.
        **options
            How raw rows are read: the attributes of `mlless.data.readers.Reading`.

        Returns
        -------
        iterator of Predictions
            Raw rows come in the order of the source.
        """
        if (dataset := as_dataset(source)) is not None:
            return self._predictions(self._scored(self._fitting(dataset), files_of(dataset, "all")))
        reading = reading_of(options)
        return self._predictions(self._scored_raw(self._opened(source, format, reading), reading, False))

    def _predictions(self, scored: Iterable[_Scored]) -> Iterator[Predictions]:
        for one in scored:
            scores, unknown = one.scored
            values = scores if self.kind == "mf" else probabilities(scores)
            yield Predictions(one.keys, values.astype(np.float32), one.done, one.skipped, unknown)

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

    def _scored_raw(self, source: Source, reading: Reading, targets: bool) -> Iterator[_Scored]:
        """Yield the rows of a raw file, which may lack the column of targets unless they are wanted."""
        if self.kind == "mf":
            for chunk in read_ratings(source, reading, rated=targets):
                rows = chunk.rows
                scored = self._ratings.scored(*self._ratings.find(rows.users, rows.items))
                done, left_out = source.progress(chunk.done), (chunk.skipped, chunk.unlabelled)
                yield _Scored((rows.users, rows.items), rows.ratings, scored, done, *left_out)
            return
        for clicks in self._clicks_of(source, reading, labelled=targets):
            csr = clicks.rows
            scored = margins_of(self.artifact, csr.starts, csr.indices, csr.values)
            done, left_out = source.progress(clicks.done), (clicks.skipped, clicks.unlabelled)
            yield _Scored((csr.numbers,), csr.labels, scored, done, *left_out)

    def _scored(self, dataset: Dataset, files: Sequence[File]) -> Iterator[_Scored]:
        """Yield the rows in files of a data set."""
        of = sum(file.rows for file in files)
        done = 0
        if self.kind == "mf":
            ids = dataset.ids()
            users, items = self._ratings.find(ids.users, ids.items)
        for group in dataset.groups(files):
            done += len(group)
            if isinstance(group, RatingsGroup):
                keys = ids.users[group.users], ids.items[group.items]
                scored = self._ratings.scored(users[group.users], items[group.items])
                yield _Scored(keys, group.ratings, scored, done / of)
            else:
                scored = margins_of(self.artifact, group.starts, group.indices, group.values)
                yield _Scored((group.numbers,), group.labels, scored, done / of)

    def _clicks_of(self, source: Source, reading: Reading, *, labelled: bool) -> Iterator[Chunk[ClicksRows]]:
        """Yield the rows of a raw file with the model's features."""
        description = self.artifact.description
        assert isinstance(description.model, Logistic)
        if source.format == "libsvm":
            yield from read_clicks(source, reading, labelled=labelled)
            return
        columns = description.columns
        assert columns is not None
        for chunk in read_columns(source, columns, reading, labelled=labelled):
            yield chunk.with_rows(columns.encode(chunk.rows))

    def predict_ratings(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """Return the predicted rating of each pair of a user and an item.

        ``users`` and ``items`` are original ids, in two sequences of the same length. Predictions are clipped
        to the scale of the ratings. An unknown user or item contributes nothing.
        """
        wide_users, wide_items = ids_of(users, "users"), ids_of(items, "items")
        if wide_users.shape != wide_items.shape or wide_users.ndim != 1:
            raise UsageError(
                "users and items must pair up",
                expected="two sequences of one length",
                found=f"{wide_users.shape} and {wide_items.shape}",
            )
        return self._ratings.scored(*self._ratings.find(wide_users, wide_items))[0].astype(np.float32)

    def recommend(
        self, users: ArrayLike, n: int = 10, *, exclude_seen: bool | Seen = True
    ) -> tuple[Ids, Floats]:
        """Return the ``n`` best items of each user, best first, and their scores.

        Parameters
        ----------
        users : id or sequence of ids
            Original ids. An unknown user gets the items that are best for everyone.
        n : int, default 10
            How many items a user gets.
        exclude_seen : bool or Seen, default True
            True leaves out the items that the user has rated in training, False leaves out nothing. The
            result of ``seen_in`` leaves out the items that the user has rated in another data set.

        Returns
        -------
        ids, scores : array, array
            A row for each user. A score is the predicted rating before it is clipped; ``within_scale`` clips
            it. Where fewer than ``n`` items are left, ids end in -1 (in "" where ids are text) and scores in
            NaN.

        Raises
        ------
        UsageError
            It is not known any more what users have rated in training, see ``seen``.
        """
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
            raise UsageError("the number of recommendations must be a whole number from 1", found=repr(n))
        ids = ids_of(users, "users")
        if ids.ndim > 1:
            raise UsageError("users must be one id or a sequence of them", found=f"the shape {ids.shape}")
        ratings = self._ratings
        seen = self.seen if exclude_seen is True else exclude_seen or None
        return ratings.recommend(ids.reshape(-1), n, seen)

    def within_scale(self, scores: Floats) -> Floats:
        """Return scores of ``recommend`` as ratings: clipped to the scale of the training data."""
        return self._ratings.clipped(scores).astype(np.float32)

    def all_users(self) -> Iterator[tuple[Ids, float]]:
        """Yield the original ids of all users of the model, in blocks of some thousand.

        Beside each block comes the share of the users that is done with it, up to 1.
        """
        users = self._ratings.ids.users
        blocks = range(0, len(users), _USERS)
        return ((users[at : at + _USERS], min((at + _USERS) / len(users), 1.0)) for at in blocks)

    def knows(self, users: Ids) -> NDArray[np.bool_]:
        """Return for each of the ``users`` whether the model knows it."""
        return self._ratings.users.find(users) >= 0

    @cached_property
    def seen(self) -> Seen:
        """The items that each user of the model has rated in training, held-out ratings included.

        The file of an estimator's model holds them. For a run they are read from its data set. UsageError if
        that is gone, or is not the one that the run was trained on.
        """
        extras = self.artifact.extras
        if "seen.starts" in extras and "seen.items" in extras:
            return self._ratings.seen_from(extras["seen.starts"], extras["seen.items"])
        try:
            where = self._trained_at()
            dataset = open_dataset(where)
            if dataset.manifest.fingerprint == self.artifact.description.trained_on:
                return self.seen_in(dataset)
            found = f"another data set at {where}"
        except MLLessError as error:
            found = str(error)
        raise UsageError(
            "it is not known what the users of this model have seen",
            where=None if self.run is None else str(self.run),
            expected="the data set that it was trained on, in its place",
            found=found,
            cure="name a data set with --exclude, or pass --include-seen",
        )

    def _trained_at(self) -> str:
        """Return the location of the data set that the run was trained on."""
        if self.run is None:
            raise DatasetError("a model without a run")
        try:
            told = msgspec.json.decode(open_objects(self.run).get("summary.json"), type=_Summary)
            return told.job.dataset
        except msgspec.DecodeError as error:
            raise DatasetError("not the summary of a run", where=str(self.run), found=str(error)) from error

    def seen_in(self, dataset: Dataset) -> Seen:
        """Return the items that each user of the model has rated in a data set, in all its parts."""
        ids = self._fitting(dataset).ids()
        users, items = self._ratings.find(ids.users, ids.items)
        seen = Sightings()
        for group in dataset.groups(files_of(dataset, "all")):
            assert isinstance(group, RatingsGroup)
            by, what = users[group.users], items[group.items]
            known = (by >= 0) & (what >= 0)
            seen.add(by[known], what[known])
        return seen.all()

    @cached_property
    def _ratings(self) -> RatingsScorer:
        return RatingsScorer(self.artifact)

    def predict_clicks(
        self, row_starts: ArrayLike, features: ArrayLike, values: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of a click for rows of a CSR matrix.

        Row n has the entries ``row_starts[n]:row_starts[n + 1]`` of ``features`` and of ``values``. Features
        are numbered as in the source file, and ``values`` None stands for 1 everywhere. A feature that the
        model does not know contributes nothing.
        """
        return probabilities(self.margins(row_starts, features, values)).astype(np.float32)

    def margins(
        self, row_starts: ArrayLike, features: ArrayLike, values: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Return the log-odds of a click for rows of a CSR matrix, given as to ``predict_clicks``."""
        return margins_of(self.artifact, row_starts, features, values)[0]

    def evaluate(self, dataset: Dataset | Location, part: Part | None = None) -> dict[str, float]:
        """Return the metrics of the model on a data set: ``rmse``, or ``log_loss`` and ``auc``.

        The result also has the number of ``rows``, and what the model did not know of them: ``unknown``, as
        in `Predictions`. Rows are matched by original ids.

        Parameters
        ----------
        dataset : str, path or Dataset
            The data set, or its place.
        part : {"all", "train", "validation"}, optional
            Which rows. By default the held-out ones of the data set that the model was trained on, and all
            rows of any other.
        """
        dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
        files = files_of(self._fitting(dataset), part or self.natural_part(dataset))
        if not files:
            raise UsageError("no rows to evaluate on", where=dataset.location, cure="choose another --part")
        return self._metrics(self._scored(dataset, files))

    @knows_options(ReadingOptions)
    def evaluate_raw(
        self, source: Sources, *, format: str | None = None, **options: Unpack[ReadingOptions]
    ) -> dict[str, float]:
        """Return the metrics of the model on the rows of raw sources, as ``evaluate`` does for a data set.

        The parameters are those of ``predict``. The result also counts the malformed rows that were
        ``skipped``, and the rows without a rating or label, ``unlabelled``.
        """
        reading = reading_of(options)
        origin = self._opened(source, format, reading)
        skipped = unlabelled = 0

        def scored() -> Iterator[_Scored]:
            """Yield scored rows, and count those that are left out."""
            nonlocal skipped, unlabelled
            for one in self._scored_raw(origin, reading, targets=True):
                skipped, unlabelled = skipped + one.skipped, unlabelled + one.unlabelled
                yield one

        metrics = self._metrics(scored())
        if not metrics["rows"]:
            raise InputError("no rows", where=origin.name, found=f"{unlabelled} without a rating or label")
        return {**metrics, "skipped": skipped, "unlabelled": unlabelled}

    def _metrics(self, scored: Iterable[_Scored]) -> dict[str, float]:
        """Return the metrics of rows, their number, and how much of them is unknown."""
        rows = unknown = 0
        squares = 0.0
        # The exact AUC ranks all rows, so their scores have to be held: 16 bytes a row.
        held = [(np.zeros(0), np.zeros(0))]
        for one in scored:
            assert one.targets is not None
            targets, scores = one.targets.astype(np.float64), one.scored[0]
            rows, unknown = rows + len(targets), unknown + one.scored[1]
            if self.kind == "mf":
                squares += float(np.square(targets - scores).sum())
            else:
                held.append((targets, scores))
        if self.kind == "mf":
            return {"rmse": math.sqrt(squares / max(rows, 1)), "rows": rows, "unknown": unknown}
        targets, scores = (np.concatenate(column) for column in zip(*held, strict=True))
        loss = float((np.logaddexp(0.0, scores) - targets * scores).sum()) / max(rows, 1)
        auc = area_under_curve(targets > 0, scores.astype(np.float32))
        return {"log_loss": loss, "auc": auc, "rows": rows, "unknown": unknown}

    @property
    def _wanted(self) -> str:
        return "clicks" if self.kind == "lr" else "ratings"

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
        """Return the part of a data set that shows how good the model is.

        That is the held-out part of the data set that the model was trained on, and all rows of any other.
        """
        own = dataset.manifest.fingerprint == self.artifact.description.trained_on
        return "validation" if own and dataset.manifest.validation else "all"


def files_of(dataset: Dataset, part: Part) -> tuple[File, ...]:
    """Return the files of a part of a data set."""
    manifest = dataset.manifest
    return {
        "train": manifest.train,
        "validation": manifest.validation,
        "all": manifest.train + manifest.validation,
    }[part]


def as_dataset(source: Sources) -> Dataset | None:
    """Return the data set at ``source``; None if there are raw rows, or nothing. DatasetError for a run."""
    given = listed(source)
    if len(given) != 1 or given[0] == STANDARD_INPUT or scheme_of(given[0]) in WEB:
        return None
    place = place_of(given[0])
    return dataset_at(place) if {MANIFEST, MODEL} & open_objects(place).names() else None


def load(run: Location) -> Predictor:
    """Return the model of a run, ready to score.

    ``run`` is the folder or URL of a run, or the folder into which an estimator was saved. DatasetError if
    there is no model.
    """
    return Predictor(read_artifact(place_of(run)), place_of(run))


@knows_options(ReadingOptions)
def evaluate(
    run: Location,
    dataset: Sources,
    part: Part | None = None,
    *,
    format: str | None = None,
    **options: Unpack[ReadingOptions],
) -> dict[str, float]:
    """Return the metrics of a run's model on a data set, or on raw rows.

    For a data set this is ``Predictor.evaluate``, for raw rows ``Predictor.evaluate_raw``. Raw rows have no
    parts, so ``part`` is for data sets only.
    """
    predictor, found = load(run), as_dataset(dataset)
    if found is not None:
        return predictor.evaluate(found, part)
    if part not in (None, "all"):
        raise UsageError("raw rows are not in parts", found=f"part {part}", cure="leave it out")
    return predictor.evaluate_raw(dataset, format=format, **options)
