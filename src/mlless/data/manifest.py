"""What a data set says of itself: ``manifest.json`` beside its groups of rows, and its id maps.

A data set is a folder, or a prefix in an object store:

    manifest.json                       this description
    ids-5e0c1f2b.safetensors            ratings only: ``users`` and ``items``, the original id of each row,
                                        as ``mlless.data.ids.pack`` has it
    train/000-1a2b3c4d.safetensors      the rows to train on of each group, in random order
    validation/000-...                  those that are held out

Names carry the CRC-32 of the content: two data sets in one place, the old and the new, do not mix.
"""

from __future__ import annotations

import zlib
from shlex import quote
from typing import Final, Literal

import msgspec

from mlless.data.features import FeatureMap
from mlless.errors import DatasetError

FORMAT: Final = 2
MANIFEST = "manifest.json"
IDS = "ids"


Bytes = bytes | memoryview


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a data set: path within it, rows held, size in bytes, CRC-32 of the bytes.

    A file without rows is not stored.
    """

    path: str
    rows: int
    bytes: int
    crc32: int

    def check(self, data: Bytes, where: str) -> None:
        """Raise DatasetError unless ``data`` is this file, unharmed."""
        if len(data) != self.bytes or zlib.crc32(data) != self.crc32:
            raise DatasetError(
                "damaged file",
                where=f"{where}/{self.path}",
                expected=f"{self.bytes} bytes with CRC-32 {self.crc32:08x}",
                found=f"{len(data)} bytes with CRC-32 {zlib.crc32(data):08x}",
                cure="partition the source again",
            )


def file_of(stem: str, data: Bytes, rows: int) -> File:
    """Return the entry of a new file, whose name is ``stem`` and the checksum."""
    checksum = zlib.crc32(data)
    return File(f"{stem}-{checksum:08x}.safetensors", rows, len(data), checksum)


NO_FILE = File("", 0, 0, 0)


class Ratings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ratings", tag_field="kind"):
    """Shape of a ratings data set. ``mean`` and ``deviation`` are of the training part.

    With ``--like`` they, ``low`` and ``high`` (the rating scale) are those of the other data set.
    """

    users: int
    items: int
    mean: float
    deviation: float
    low: float
    high: float


class Clicks(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,  # so that a data set without ``columns`` keeps its fingerprint
    tag="clicks",
    tag_field="kind",
):
    """Shape of a clicks data set.

    Feature indices are kept as they stand in the source; the table has
    ``features + index_base`` rows, for a one-based file never uses row 0.
    ``positives`` is the share of label 1 in the training part. ``columns`` says how the features
    were made, where the source was a table with columns.
    """

    features: int
    index_base: int
    positives: float
    columns: FeatureMap | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if the columns do not make these features."""
        if self.columns:
            self.columns.check_learned(self.table_rows)

    @property
    def table_rows(self) -> int:
        """Rows of the table of features."""
        return self.features + self.index_base


class Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a data set was made: enough to make it again from the same source.

    ``skipped`` malformed rows were left out, and so were ``unlabelled`` ones, without a rating or label.
    """

    version: str
    source: str
    source_bytes: int
    format: str
    seed: int
    validation: float
    like: str | None
    skipped: int
    unlabelled: int = 0


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something to doubt in a data set: what kind of thing, and a line that says what it means."""

    kind: str
    text: str


class Manifest(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,  # so that a data set without ``notes`` keeps its fingerprint
):
    """The description of a data set. ``rows`` counts training and validation together.

    ``train`` has a file for each group, and so has ``validation`` unless nothing is held out.
    """

    format: Literal[2]
    shape: Ratings | Clicks
    made: Made
    rows: int
    train: tuple[File, ...]
    validation: tuple[File, ...]
    ids: File | None
    notes: tuple[Finding, ...] = ()

    @property
    def kind(self) -> str:
        """``ratings`` or ``clicks``."""
        return "ratings" if isinstance(self.shape, Ratings) else "clicks"

    @property
    def files(self) -> tuple[File, ...]:
        """All files that are stored, but for the manifest itself."""
        rows = (file for file in self.train + self.validation if file.rows)
        return (*rows, *((self.ids,) if self.ids else ()))

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with anything in the manifest."""
        return f"{zlib.crc32(msgspec.json.encode(self)):08x}"


class _AnyMade(msgspec.Struct, frozen=True):
    source: str = "SOURCE"
    format: str | None = None
    seed: int = 0
    validation: float | None = None
    like: str | None = None
    skipped: int = 0
    unlabelled: int = 0


class _AnyFormat(msgspec.Struct):
    """What can be told of a data set of any version."""

    format: int
    made: _AnyMade = _AnyMade()

    def command(self, where: str) -> str:
        """Return how to make the data set anew."""
        made = self.made
        options = f" --format {made.format}" if made.format else ""
        options += f" --seed {made.seed}" if made.seed else ""
        options += f" --validation {made.validation:g}" if made.validation is not None else ""
        options += " --skip-malformed" if made.skipped else ""
        options += " --drop-unlabelled" if made.unlabelled else ""
        options += " --like DATASET" if made.like else ""
        return f"mlless partition {quote(made.source)} {quote(where)}{options} --overwrite"


class _AnyFile(msgspec.Struct):
    path: str


class _AnyFiles(msgspec.Struct):
    """The files of a data set of any version."""

    train: tuple[_AnyFile, ...] = ()
    validation: tuple[_AnyFile, ...] = ()
    ids: _AnyFile | None = None


# Made before a zygote forks: to look through the types takes milliseconds.
_manifest = msgspec.json.Decoder(Manifest)
_any_format = msgspec.json.Decoder(_AnyFormat)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Return the manifest in ``data``; DatasetError if it is none, or of another version."""
    try:
        found = _any_format.decode(data)
        if found.format != FORMAT:
            raise DatasetError(
                "a data set of another version",
                where=where,
                expected=f"format {FORMAT}",
                found=f"format {found.format}",
                cure="make it anew, with the path of its source and what other options you gave then: "
                f"{found.command(where.rpartition('/')[0])}",
            )
        return _manifest.decode(data)
    except msgspec.DecodeError as error:
        raise _no_manifest(where, error) from error


def paths_in(data: bytes, where: str) -> set[str]:
    """Return the paths of the files that a manifest of any version names; DatasetError if it is none."""
    try:
        found = msgspec.json.decode(data, type=_AnyFiles)
    except msgspec.DecodeError as error:
        raise _no_manifest(where, error) from error
    files = (*found.train, *found.validation, *((found.ids,) if found.ids else ()))
    return {file.path for file in files if file.path}


def _no_manifest(where: str, error: msgspec.DecodeError) -> DatasetError:
    cure = "partition the source again with this version of mlless"
    return DatasetError("not a valid manifest", where=where, found=str(error), cure=cure)
