"""From a source of raw rows to a data set: two passes, bounded memory, the same bytes every time.

Pass 1 parses the source and collects ids; pass 2 writes the rows group by group, those to train on and
those that are held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import mlless
from mlless.data.dataset import Dataset, dataset_at, open_dataset
from mlless.data.dealing import BOUND
from mlless.data.destination import Destination, destination
from mlless.data.features import Layout, RatingsLayout, Scaling
from mlless.data.findings import Survey, check_two_classes
from mlless.data.groups import encode_group
from mlless.data.manifest import (
    FORMAT,
    IDS,
    MANIFEST,
    NO_FILE,
    File,
    Made,
    Manifest,
    encode_manifest,
    file_of,
)
from mlless.data.preparation import ClicksPreparation, ColumnsPreparation, Preparation, RatingsPreparation
from mlless.data.progress import ShowProgress, unseen
from mlless.data.readers import ReadingOptions, Source, Sources, open_source, reading_of
from mlless.data.request import Request
from mlless.data.rows import R
from mlless.data.spool import Spool
from mlless.errors import InputError, UsageError, warn
from mlless.locations import Location, place_of
from mlless.options import knows_options

Tell = Callable[[str], None]

VALIDATION = 0.1
_PASS_1 = 0.5  # the share of the work, for progress


@knows_options(ReadingOptions)
def partition(
    source: Sources,
    dest: Location,
    *,
    format: str | None = None,
    features: int | None = None,
    columns: str | Path | Layout | RatingsLayout | None = None,
    numeric: Scaling | None = None,
    hash_seed: int = 0,
    validation: float | None = None,
    like: Location | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: ShowProgress | None = None,
    tell: Tell | None = None,
    **reading: Unpack[ReadingOptions],
) -> Dataset:
    """Write the rows of ``source`` in groups to ``dest``, and return the data set.

    A tenth of the rows is held out by default. A source is read once. The same source, options and seed give
    the same bytes.

    Parameters
    ----------
    source : str, path, or a list of these
        A file, a pattern such as ``part-*.csv``, a folder of parts, a URL, or ``-`` for standard input.
    dest : str or path
        A folder, or the URL of a prefix in an object store.
    format : {"ratings", "libsvm", "criteo", "columns"}, optional
        What the source holds. By default it is found from its name and content.
    features : int, optional
        The number of features of clicks. For LIBSVM the default is the largest index plus one. For tables it
        is the number of features that categories are hashed into, 2^18 by default.
    columns : str, path, Layout or RatingsLayout, optional
        What the columns of a table are: a TOML file that describes them, or its content. By default columns
        of ratings are known by their usual names, and columns of clicks are guessed.
    numeric : {"standard", "minmax"}, optional
        How numeric columns are scaled, see `mlless.data.features.FeatureMap`. The default is ``standard``.
    hash_seed : int, default 0
        Another seed hashes categories to other features.
    validation : float, optional
        The share of rows that is held out. The default is 0.1, and 0 with ``like``.
    like : str or path, optional
        A data set whose ids, scales and features this one is to have, too: makes a test set.
    seed : int, default 0
        Decides the groups and the order of the rows.
    overwrite : bool, default False
        Whether to replace ``dest`` if it is a data set.
    progress : callable, optional
        Is called with the share that is done, None if it is not known, and with what is done just now.
    tell : callable, optional
        Is called with each guess about the columns. By default a guess is a warning.
    **reading
        How rows are to be read, where the source does not say it: the attributes of
        `mlless.data.readers.Reading`, such as ``user_column`` or ``skip_malformed``.
    """
    place = place_of(dest)
    model = open_dataset(like) if like is not None else None
    request = Request(format, features, columns, numeric, hash_seed, model, reading_of(reading), tell or warn)
    origin = request.settled(open_source(source, format=request.format))
    options = _options(validation, seed, model)
    preparation = request.preparation(origin)
    with destination(place, overwrite=overwrite) as target:
        kept = [("the source", part.address) for part in origin.parts]
        kept += [("the data set of --like", model.address)] if model else []
        for name, address in kept:
            if f"{address}/".startswith(f"{place.address}/"):
                raise UsageError(f"{name} would be replaced", where=address, cure="choose another DEST")
        job = _Partitioning(origin, target, options, progress or unseen)
        # Calls that look alike: a type variable cannot stand for a union.
        match preparation:
            case RatingsPreparation():
                job.run(preparation)
            case ClicksPreparation():
                job.run(preparation)
            case ColumnsPreparation():
                job.run(preparation)
    return dataset_at(place)


@dataclass(frozen=True, slots=True)
class _Options:
    validation: float
    seed: int
    like: str | None


def _options(validation: float | None, seed: int, like: Dataset | None) -> _Options:
    if validation is None:
        validation = 0.0 if like else VALIDATION
    if not 0.0 <= validation < 1.0:
        raise UsageError(
            "no such share for validation", expected="0 up to, not including, 1", found=str(validation)
        )
    if seed < 0:
        raise UsageError("no such seed", expected="0 or more", found=str(seed))
    return _Options(validation, seed, like.manifest.fingerprint if like else None)


class _Partitioning:
    """The two passes over one source."""

    def __init__(
        self, source: Source, target: Destination, options: _Options, progress: ShowProgress
    ) -> None:
        self.source, self.options, self.progress = source, options, progress
        self.spool_folder = target.work / "spool"
        self.files = target.files
        self.survey = Survey(judges=options.like is not None)
        self._read = self._skipped = self._unlabelled = 0

    def run(self, preparation: Preparation[R]) -> None:
        """Write the data set."""
        spool = Spool(self.spool_folder, preparation.rows, self.options.seed, BOUND)
        self._collect(preparation, spool)
        held_out = spool.hold_out(round(spool.rows * self.options.validation))
        self._check_rows(spool.rows, held_out)
        preparation.settle(spool.training())
        train, validation = self._write(preparation, spool)
        ids, shape = preparation.ids(), preparation.shape()
        seen = self.survey.findings(
            shape,
            validation=self.options.validation,
            repeats=spool.repeats,
            largest_group=spool.largest_group,
        )
        manifest = Manifest(
            format=FORMAT,
            shape=shape,
            made=self._made(),
            rows=spool.rows,
            train=train,
            validation=validation if held_out else (),
            ids=self._put(IDS, ids, 0) if ids is not None else None,
            notes=(*seen, *preparation.findings()) if self.options.like is None else tuple(seen),
        )
        if self.options.like is None:
            check_two_classes(manifest, self.source.name)
        self.files.put(MANIFEST, encode_manifest(manifest))
        self.progress(1.0, "done")

    def _collect(self, preparation: Preparation[R], spool: Spool[R]) -> None:
        """Pass 1."""
        for chunk in preparation.chunks():
            spool.add(preparation.note(chunk))
            self._skipped += chunk.skipped
            self._unlabelled += chunk.unlabelled
            self._read = chunk.done
            share = self.source.progress(chunk.done)
            if share is None:
                self.progress(None, f"reading, {spool.rows:,} rows")
            else:
                self.progress(_PASS_1 * share, "reading")

    def _check_rows(self, rows: int, held_out: int) -> None:
        where = self.source.name
        if not rows:
            found = f"{self._unlabelled} without a rating or label" if self._unlabelled else "none"
            raise InputError("no rows", where=where, expected="at least one", found=found)
        if held_out == rows:
            raise UsageError(
                "no rows are left for training",
                where=where,
                found=f"all of {rows} for validation",
                cure="give a smaller --validation",
            )

    def _write(
        self, preparation: Preparation[R], spool: Spool[R]
    ) -> tuple[tuple[File, ...], tuple[File, ...]]:
        """Pass 2: return a file for each group's rows to train on, and one for its held-out rows."""
        files: dict[str, list[File]] = {"train": [], "validation": []}
        done = 0
        for number, parts in enumerate(
            spool.dealt(preparation.deal(spool.rows, spool.size, self.options.seed))
        ):
            for part, rows in zip(files, parts, strict=True):
                files[part].append(self._put_rows(preparation, rows, f"{part}/{number:06d}", part == "train"))
                done += len(rows)
            self.progress(_PASS_1 + (1 - _PASS_1) * done / spool.rows, "writing")
        return tuple(files["train"]), tuple(files["validation"])

    def _put_rows(self, preparation: Preparation[R], rows: R, stem: str, training: bool) -> File:
        if not len(rows):
            return NO_FILE
        group = preparation.group(rows, training)
        self.survey.add(group, held_out=not training)
        return self._put(stem, encode_group(group), len(group))

    def _put(self, stem: str, data: bytes, rows: int) -> File:
        file = file_of(stem, data, rows)
        self.files.put(file.path, data)
        return file

    def _made(self) -> Made:
        return Made(
            version=mlless.__version__,
            source=self.source.name.rpartition("/")[2],
            source_bytes=self.source.bytes or self._read,
            format=self.source.format,
            seed=self.options.seed,
            validation=self.options.validation,
            like=self.options.like,
            skipped=self._skipped,
            unlabelled=self._unlabelled,
        )
