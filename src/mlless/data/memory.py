"""A data set from arrays at hand: groups and a manifest as on disk, held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

import mlless
from mlless.channels.folder import Folder
from mlless.channels.ports import Bytes, ObjectStore
from mlless.data.dataset import Dataset
from mlless.data.dealing import Places, RowDeal, cut_users, groups_for, spread
from mlless.data.features import FeatureMap
from mlless.data.findings import Survey
from mlless.data.groups import ClicksGroup, Group, RatingsGroup, encode_group
from mlless.data.ids import RatingIds, pack
from mlless.data.manifest import (
    FORMAT,
    IDS,
    MANIFEST,
    NO_FILE,
    Clicks,
    File,
    Made,
    Manifest,
    Ratings,
    encode_manifest,
    file_of,
)
from mlless.data.rows import ClicksRows, RatingsRows, Rows, clicks_group, rows_of_group
from mlless.data.spool import boundary, groups_of, hash_state
from mlless.errors import MissingObject

IN_MEMORY = "arrays in memory"
_GROUPS = 64  # for one worker mostly, or few: each group takes time of its own


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
class Parting:
    """Which rows are held out: what ``partition`` calls ``validation`` and ``seed``."""

    validation: float
    seed: int

    def held_out(self, rows: Rows) -> NDArray[np.bool_]:
        """Return whether each row is held out; rows of the same pair are kept together."""
        hashes = rows.hashes(hash_state(self.seed))
        last, held_out = boundary(hashes, round(len(rows) * self.validation))
        return hashes <= (-1 if held_out == len(rows) else last)


def ratings_in_memory(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    ratings: NDArray[np.float32],
    *,
    ids: RatingIds,
    scale: Ratings | None,
    parting: Parting,
) -> Dataset:
    """Return a data set of ratings.

    ``users`` and ``items`` are table rows, whose original ids are ``ids``; ``scale`` gives mean,
    deviation and limits, which are those of the rows themselves if it is None.
    """
    rows = RatingsRows(users, items, ratings)
    held_out = parting.held_out(rows)
    if scale is None:
        trained = ratings[~held_out].astype(np.float64)
        # Equal ratings have no deviation, only rounding.
        deviation = float(trained.std()) if trained.min() < trained.max() else 1.0
        scale = Ratings(0, 0, float(trained.mean()), deviation, float(ratings.min()), float(ratings.max()))
    shape = Ratings(len(ids.users), len(ids.items), scale.mean, scale.deviation, scale.low, scale.high)
    counts = np.bincount(users, minlength=len(ids.users))
    columns = RatingsGroup(users.astype(np.uint32), items.astype(np.uint32), ratings)
    group_of = cut_users(counts, groups_for(len(rows), columns.nbytes, len(counts), _GROUPS))[users]
    distinct, largest = groups_of(rows.hashes(hash_state(parting.seed)))
    named = safetensors.numpy.save(pack("users", ids.users) | pack("items", ids.items))

    def group(places: Places) -> Group:
        """Return the ratings at these places."""
        return RatingsGroup(columns.users[places], columns.items[places], ratings[places])

    parts = spread(group_of, held_out, range(int(group_of.max()) + 1), parting.seed)
    repeats = len(rows) - distinct
    return _held(parts, group, shape, parting, named, repeats=repeats, largest_group=largest)


def clicks_in_memory(
    rows: ClicksRows,
    weights: NDArray[np.float32] | None,
    *,
    features: int,
    parting: Parting,
    columns: FeatureMap | None = None,
) -> Dataset:
    """Return a data set of clicks; ``weights`` say how much each row counts, 1 on average.

    ``columns`` says how the features were made, where they were.
    """
    held_out = parting.held_out(rows)
    counts = None if weights is None else weights[~held_out].astype(np.float64)
    shape = Clicks(features, 0, float(np.average(rows.labels[~held_out], weights=counts)), columns)
    size = sum(column.nbytes for column in rows.columns())
    deal = RowDeal(groups_for(len(rows), size, len(rows), _GROUPS), parting.seed)

    def group(places: Places) -> Group:
        """Return the rows at these places."""
        return clicks_group(rows.take(places), None if weights is None else weights[places])

    parts = spread(deal.of(rows, 0), held_out, range(deal.groups), parting.seed)
    return _held(parts, group, shape, parting, None)


def _held(
    parts: Iterator[tuple[Places, Places]],
    group: Callable[[Places], Group],
    shape: Ratings | Clicks,
    parting: Parting,
    ids: bytes | None,
    **repeats: int,
) -> Dataset:
    """Return a data set of groups, whose rows to train on and held-out rows lie at the places ``parts``."""
    objects, survey = MemoryObjects(), Survey()
    files: dict[str, list[File]] = {"train": [], "validation": []}
    for number, places in enumerate(parts):
        for part, some in zip(files, places, strict=True):
            if not len(some):
                files[part].append(NO_FILE)
                continue
            rows = group(some)
            survey.add(rows, held_out=part == "validation")
            files[part].append(_put(objects, f"{part}/{number:06d}", encode_group(rows), len(rows)))
    made = Made(
        version=mlless.__version__,
        source=IN_MEMORY,
        source_bytes=0,
        format="ratings" if isinstance(shape, Ratings) else "columns" if shape.columns else "libsvm",
        seed=parting.seed,
        validation=parting.validation,
        like=None,
        skipped=0,
    )
    held_out = sum(file.rows for file in files["validation"])
    manifest = Manifest(
        format=FORMAT,
        shape=shape,
        made=made,
        rows=sum(file.rows for file in files["train"]) + held_out,
        train=tuple(files["train"]),
        validation=tuple(files["validation"]) if held_out else (),
        ids=None if ids is None else _put(objects, IDS, ids, 0),
        notes=tuple(survey.findings(shape, validation=parting.validation, **repeats)),
    )
    return Dataset(IN_MEMORY, manifest, objects, IN_MEMORY)


def _put(objects: ObjectStore, stem: str, data: bytes, rows: int) -> File:
    file = file_of(stem, data, rows)
    objects.put(file.path, data)
    return file


def of_all_rows(dataset: Dataset) -> Dataset:
    """Return a data set of the same groups, beside it in memory, in which nothing is held out."""
    manifest, train = dataset.manifest, []
    for number, files in enumerate(zip(manifest.train, manifest.validation, strict=True)):
        group = _mixed(list(dataset.groups(files)), np.random.default_rng([manifest.made.seed, number]))
        train.append(_put(dataset.objects, f"train/{number:06d}", encode_group(group), len(group)))
    manifest = msgspec.structs.replace(manifest, train=tuple(train), validation=())
    return replace(dataset, manifest=manifest)


def _mixed(groups: Sequence[Group], random: np.random.Generator) -> Group:
    """Return the rows of ``groups``, of one kind, as one in random order."""
    order = random.permutation(sum(map(len, groups)))
    if ratings := [group for group in groups if isinstance(group, RatingsGroup)]:
        users = np.concatenate([group.users for group in ratings])[order]
        items = np.concatenate([group.items for group in ratings])[order]
        return RatingsGroup(users, items, np.concatenate([group.ratings for group in ratings])[order])
    clicks = [group for group in groups if isinstance(group, ClicksGroup)]
    rows = ClicksRows.join([rows_of_group(group) for group in clicks]).take(order)
    weights = [group.weights for group in clicks if group.weights is not None]
    return clicks_group(rows, np.concatenate(weights)[order] if weights else None)


def store_dataset(dataset: Dataset, folder: Path) -> Dataset:
    """Write a data set's files into ``folder`` and return the one that is there."""
    manifest, objects = dataset.manifest, Folder(folder)
    for file in manifest.files:
        objects.put(file.path, dataset.objects.get(file.path))
    objects.put(MANIFEST, encode_manifest(manifest))
    return Dataset(str(folder), manifest, objects, str(folder.resolve()))
