"""A data set from arrays at hand: the same mini-batches and manifest as on disk, held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

import mlless
from mlless.channels.folder import Folder
from mlless.channels.ports import Bytes
from mlless.data.batches import Batch, encode_batch, group_ratings, pack_clicks
from mlless.data.dataset import Dataset
from mlless.data.features import FeatureMap
from mlless.data.findings import Survey
from mlless.data.ids import RatingIds, pack
from mlless.data.manifest import (
    FORMAT,
    IDS,
    MANIFEST,
    Clicks,
    File,
    Made,
    Manifest,
    Ratings,
    encode_manifest,
    file_of,
)
from mlless.data.partition import default_batch_size
from mlless.data.rows import ClicksRows, RatingsRows, Rows
from mlless.data.spool import boundary, even_sizes, groups_of, hash_state, random_order
from mlless.errors import MissingObject

IN_MEMORY = "arrays in memory"


class MemoryObjects:
    """An ObjectStore in memory."""

    distant = False

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    def get(self, path: str) -> bytes:
        """Return the whole object."""
        if path not in self._objects:
            raise MissingObject("no such object", where=f"{IN_MEMORY}: {path}")
        return self._objects[path]

    def put(self, path: str, data: Bytes) -> None:
        """Keep a copy of ``data``."""
        self._objects[path] = bytes(data)

    def delete(self, paths: Iterable[str]) -> None:
        """Forget the objects."""
        for path in paths:
            self._objects.pop(path, None)

    def names(self) -> set[str]:
        """Return the first parts of the paths."""
        return {path.partition("/")[0] for path in self._objects}


@dataclass(frozen=True, slots=True)
class Cut:
    """How rows become mini-batches: what ``partition`` calls ``batch_size``, ``validation`` and ``seed``."""

    batch_size: int | None
    validation: float
    seed: int

    def order(self, rows: Rows) -> Order:
        """Return a random order of the rows, held-out ones first; rows of the same pair are kept together."""
        count = len(rows)
        hashes = rows.hashes(hash_state(self.seed))
        last, held_out = boundary(hashes, count, round(count * self.validation))
        if held_out == count:
            last, held_out = -1, 0
        places = random_order(hashes, last, np.random.SeedSequence([self.seed, count]))
        return Order(places, held_out, self.batch_size or default_batch_size(count - held_out))


@dataclass(frozen=True, slots=True)
class Order:
    """``places`` of rows in the order of mini-batches of at most ``batch_size``; the first are held out."""

    places: NDArray[np.intp]
    held_out: int
    batch_size: int

    def pieces(self) -> Iterator[tuple[str, int, slice]]:
        """Yield each mini-batch: its part, its number there and its place in the order."""
        at = 0
        for part, count in (("validation", self.held_out), ("train", len(self.places) - self.held_out)):
            for number, size in enumerate(even_sizes(count, self.batch_size)):
                yield part, number, slice(at, at + size)
                at += size


def ratings_in_memory(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    ratings: NDArray[np.float32],
    *,
    ids: RatingIds,
    scale: Ratings | None,
    cut: Cut,
) -> Dataset:
    """Return a data set of ratings.

    ``users`` and ``items`` are table rows, whose original ids are ``ids``; ``scale`` gives mean,
    deviation and limits, which are those of the rows themselves if it is None.
    """
    rows = RatingsRows(users, items, ratings)
    order = cut.order(rows)
    users, items, ratings = users[order.places], items[order.places], ratings[order.places]
    if scale is None:
        trained = ratings[order.held_out :].astype(np.float64)
        # Equal ratings have no deviation, only rounding.
        deviation = float(trained.std()) if trained.min() < trained.max() else 1.0
        scale = Ratings(0, 0, float(trained.mean()), deviation, float(ratings.min()), float(ratings.max()))
    shape = Ratings(len(ids.users), len(ids.items), scale.mean, scale.deviation, scale.low, scale.high)
    batches = (
        (part, number, group_ratings(users[piece], items[piece], ratings[piece]))
        for part, number, piece in order.pieces()
    )
    groups, largest = groups_of(rows.hashes(hash_state(cut.seed)))
    named = safetensors.numpy.save(pack("users", ids.users) | pack("items", ids.items))
    return _held(batches, shape, order, cut, named, repeats=len(rows) - groups, largest_group=largest)


def clicks_in_memory(
    rows: ClicksRows,
    weights: NDArray[np.float32] | None,
    *,
    features: int,
    cut: Cut,
    columns: FeatureMap | None = None,
) -> Dataset:
    """Return a data set of clicks; ``weights`` say how much each row counts, 1 on average.

    ``columns`` says how the features were made, where they were.
    """
    order = cut.order(rows)
    rows = rows.take(order.places)
    if weights is not None:
        weights = weights[order.places]
    at = order.held_out
    counts = None if weights is None else weights[at:].astype(np.float64)
    shape = Clicks(features, 0, float(np.average(rows.labels[at:], weights=counts)), columns)
    return _held(_click_batches(rows, weights, order), shape, order, cut, None)


def _click_batches(
    rows: ClicksRows, weights: NDArray[np.float32] | None, order: Order
) -> Iterator[tuple[str, int, Batch]]:
    for part, number, piece in order.pieces():
        some = rows.part(piece.start, piece.stop)
        batch = pack_clicks(
            some.labels, some.starts, some.indices.astype(np.int64), some.values, some.numbers
        )
        yield part, number, batch if weights is None else replace(batch, weights=weights[piece])


def _held(
    batches: Iterable[tuple[str, int, Batch]],
    shape: Ratings | Clicks,
    order: Order,
    cut: Cut,
    ids: bytes | None,
    **repeats: int,
) -> Dataset:
    objects, survey = MemoryObjects(), Survey()

    def put(stem: str, data: bytes, count: int) -> File:
        file = file_of(stem, data, count)
        objects.put(file.path, data)
        return file

    files: dict[str, list[File]] = {"train": [], "validation": []}
    for part, number, batch in batches:
        survey.add(batch, held_out=part == "validation")
        files[part].append(put(f"{part}/{number:06d}", encode_batch(batch), len(batch)))
    made = Made(
        version=mlless.__version__,
        source=IN_MEMORY,
        source_bytes=0,
        format="ratings" if isinstance(shape, Ratings) else "columns" if shape.columns else "libsvm",
        seed=cut.seed,
        batch_size=order.batch_size,
        validation=cut.validation,
        like=None,
        skipped=0,
    )
    manifest = Manifest(
        format=FORMAT,
        shape=shape,
        made=made,
        rows=len(order.places),
        train=tuple(files["train"]),
        validation=tuple(files["validation"]),
        ids=None if ids is None else put(IDS, ids, 0),
        notes=tuple(survey.findings(shape, validation=cut.validation, **repeats)),
    )
    return Dataset(IN_MEMORY, manifest, objects, IN_MEMORY)


def store_dataset(dataset: Dataset, folder: Path) -> Dataset:
    """Write a data set's files into ``folder`` and return the one that is there."""
    manifest, objects = dataset.manifest, Folder(folder)
    for file in manifest.files:
        objects.put(file.path, dataset.objects.get(file.path))
    objects.put(MANIFEST, encode_manifest(manifest))
    return Dataset(str(folder), manifest, objects, str(folder.resolve()))
