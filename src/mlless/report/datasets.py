"""A data set in words, and in numbers for scripts."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mlless.data.dataset import Dataset
from mlless.data.features import FeatureMap
from mlless.data.manifest import Clicks, File, Manifest, Ratings
from mlless.report.wording import count

Fact = int | float | str | list[str] | None


def facts(dataset: Dataset) -> dict[str, Fact]:
    """Return what is to be known of a data set, flat but for the list of notes."""
    manifest = dataset.manifest
    shape: dict[str, Fact] = msgspec.to_builtins(manifest.shape)
    if columns := _columns(dataset):
        shape |= {
            "columns": len(columns.layout.numeric) + len(columns.layout.categorical),
            "hashed_into": columns.hashed,
            "scaling": columns.scaling,
        }
    return {
        "location": dataset.location,
        **shape,
        "rows": manifest.rows,
        "train_rows": _rows(manifest.train),
        "groups": len(manifest.train),
        "validation_rows": _rows(manifest.validation),
        "skipped": manifest.made.skipped,
        "unlabelled": manifest.made.unlabelled,
        "fingerprint": manifest.fingerprint,
        "notes": [note.text for note in manifest.notes],
    }


def description(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yield what is to be known of a data set as labelled lines."""
    manifest, shape = dataset.manifest, dataset.manifest.shape
    yield "data", dataset.location
    if isinstance(shape, Ratings):
        who = f"{count(shape.users, 'user')} and {count(shape.items, 'item')}"
        yield "rows", f"{count(manifest.rows, 'rating')} of {who}, {shape.low:g} to {shape.high:g}"
    else:
        yield "rows", f"{count(manifest.rows, 'row')} with {count(shape.features, 'feature')}"
        if columns := shape.columns:
            numeric = f"{count(len(columns.layout.numeric), 'numeric column')} ({columns.scaling})"
            hashed = f"{len(columns.layout.categorical):,} hashed into {count(columns.hashed, 'feature')}"
            yield "columns", f"{numeric}, {hashed}"
    largest = max(file.rows for file in manifest.train)
    groups = f"{count(len(manifest.train), 'group')} of up to {count(largest)}"
    yield "train", f"{count(_rows(manifest.train), 'row')} in {groups}{_level(manifest)}"
    if manifest.validation:
        yield "held out", count(_rows(manifest.validation), "row")
    if manifest.made.skipped:
        yield "left out", count(manifest.made.skipped, "malformed line")
    if manifest.made.unlabelled:
        yield "left out", f"{count(manifest.made.unlabelled, 'row')} without a rating or label"
    for note in manifest.notes:
        yield "note", note.text


def _columns(dataset: Dataset) -> FeatureMap | None:
    shape = dataset.manifest.shape
    return None if isinstance(shape, Ratings) else shape.columns


def _level(manifest: Manifest) -> str:
    """Return what the rows to train on are on average; nothing where that is known of other rows alone."""
    shape = manifest.shape
    if isinstance(shape, Clicks):
        return f", {shape.positives:.1%} of them of label 1"
    return f", mean {shape.mean:.2f}" if manifest.made.like is None else ""


def _rows(files: tuple[File, ...]) -> int:
    return sum(file.rows for file in files)
