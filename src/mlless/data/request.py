"""What a source is taken for: from the options of ``partition`` to the preparation that reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mlless.data.dataset import Dataset
from mlless.data.features import (
    CRITEO,
    HASHED,
    MOST_HASHED,
    SCALINGS,
    FeatureMap,
    Layout,
    RatingsLayout,
    Scaling,
)
from mlless.data.layout_files import layout_text, read_layout
from mlless.data.manifest import Clicks
from mlless.data.preparation import ClicksPreparation, ColumnsPreparation, RatingsPreparation
from mlless.data.readers import Reading, Source, first_rows
from mlless.data.readers.forms import checked
from mlless.data.readers.guess_clicks import guess_layout
from mlless.data.readers.plan import doubt, perhaps_not_ratings
from mlless.data.readers.reading import LABEL, labels_cure
from mlless.errors import InputError, UsageError

MOST_FEATURES = 2**31


@dataclass
class Request:
    """The options that say what the rows of a source are; see ``partition``."""

    given_format: str | None
    features: int | None
    columns: str | Path | Layout | RatingsLayout | None
    numeric: Scaling | None
    hash_seed: int
    like: Dataset | None
    reading: Reading
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        if isinstance(self.columns, str | Path):
            self.columns = read_layout(self.columns)
        if isinstance(self.columns, RatingsLayout):
            self.reading = self.reading.described(self.columns)
            self.columns = None

    @property
    def format(self) -> str | None:
        """The format asked for, or that follows from what else is asked for."""
        if self.given_format or self.columns:
            return self.given_format or "columns"
        if self.reading.columns:
            return "ratings"
        known = self._clicks_of_like
        return known.columns.format if known and known.columns else None

    @property
    def _clicks_of_like(self) -> Clicks | None:
        """The shape of the data set of ``like``, if there is one and it is of clicks."""
        shape = self.like.manifest.shape if self.like else None
        return shape if isinstance(shape, Clicks) else None

    def settled(self, source: Source) -> Source:
        """Return the source for what it is, where it has been taken for ratings on the strength of a guess.

        UsageError if it may be something else. What is guessed of the columns of clicks is told.
        """
        guessed = source.format == "ratings" and not self.format and not self.like
        if not guessed and not (source.format == "columns" and not self.columns and not self.like):
            return source
        head = first_rows(source, self.reading)
        guess = guess_layout(head, self.reading.labels)
        if guess is None:
            if guessed and (why := doubt(head)):
                raise perhaps_not_ratings(source.name, why, ", ".join(head.rows[0]))
            return source
        self.columns = guess.layout
        if guess.unknown:
            given = self.reading.labels
            wrong = "not those of --labels" if given else "not known"
            raise InputError(
                f"a table of clicks whose labels, in column {guess.layout.label}, are {wrong}",
                where=source.name,
                expected=" and ".join(given) if given else LABEL,
                found=" and ".join(sorted(guess.unknown)),
                cure=labels_cure(guess.unknown),
            )
        numbering = " Its first column has no name and counts the rows: it is left out." * guess.numbering
        self.tell(
            f"{source.name} is taken for a table of clicks.{numbering} "
            "To keep or change what its columns are, "
            "save these lines as columns.toml, and give --columns columns.toml (columns= in Python):\n"
            f"{layout_text(guess.layout)}"
        )
        return replace(source, format="columns")

    def preparation(self, source: Source) -> RatingsPreparation | ClicksPreparation | ColumnsPreparation:
        """Return what reads ``source`` as asked; UsageError if the options do not go together."""
        kind = "ratings" if source.format == "ratings" else "clicks"
        if self.like and self.like.manifest.kind != kind:
            found = self.like.manifest.kind
            raise UsageError(
                "a data set of the other kind", where=self.like.location, expected=kind, found=found
            )
        if source.format in ("criteo", "columns"):
            return ColumnsPreparation(source, self._feature_map(source), self.reading)
        if self.columns or self.numeric or self.hash_seed:
            raise UsageError(
                "--columns, --numeric and --hash-seed are for tables of clicks",
                where=source.name,
                found=source.format,
            )
        if kind == "ratings":
            if self.features is not None:
                raise UsageError("--features is for clicks", where=source.name, found="ratings")
            sure = self.format is not None or self.like is not None
            return RatingsPreparation(source, self.like, self.reading, sure)
        if self.features is not None:
            if self.like:
                raise UsageError("--features comes from the data set of --like", cure="give only one of them")
            _check_features(self.features, MOST_FEATURES)
        return ClicksPreparation(source, self.features, self._clicks_of_like, self.reading)

    def _feature_map(self, source: Source) -> FeatureMap:
        """Return how the columns become features, without scales where these are still to be learned."""
        if self.like and (known := self._clicks_of_like):
            return self._map_of_like(self.like, known)
        if source.format == "criteo" and self.columns:
            raise UsageError("--format criteo says what the columns are", cure="leave it out, or --columns")
        if source.format == "columns" and not self.columns:
            cure = "describe them with --columns"
            raise UsageError("what the columns are is not known", where=source.name, cure=cure)
        if self.numeric is not None and self.numeric not in SCALINGS:
            raise UsageError("no such scaling", expected=" or ".join(SCALINGS), found=repr(self.numeric))
        if not 0 <= self.hash_seed < 1 << 63:
            raise UsageError("no such hash seed", expected="0 to 2^63-1", found=str(self.hash_seed))
        hashed = HASHED if self.features is None else self.features
        _check_features(hashed, MOST_HASHED)
        layout = self.columns if isinstance(self.columns, Layout) else CRITEO
        layout.check(source.name)
        if self.reading.labels:
            layout = msgspec.structs.replace(layout, labels=self.reading.labels)
        if self.reading.separator is not None:
            layout = msgspec.structs.replace(layout, separator=checked(self.reading.separator))
        return FeatureMap(1, layout, hashed, self.hash_seed, self.numeric or "standard", ())

    def _map_of_like(self, like: Dataset, known: Clicks) -> FeatureMap:
        if known.columns is None:
            raise UsageError("the data set of --like was not made of columns", where=like.location)
        if self.columns or self.features or self.numeric or self.hash_seed:
            raise UsageError(
                "columns and features come from the data set of --like",
                cure="leave --columns, --features, --numeric and --hash-seed out",
            )
        return known.columns


def _check_features(features: int, most: int) -> None:
    if not 1 <= features <= most:
        raise UsageError("no such number of features", expected=f"1 to {most}", found=str(features))
