"""Where data sets, runs and raw rows are: folders of this machine, prefixes of object stores, web servers.

A location is what a user writes: a path, or a URL ``SCHEME://BUCKET/PREFIX``. It is read once, where it
comes in; what is handed on is the place that it names. What is there is opened by ``channels.opening``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

from mlless.errors import UsageError, hidden

Location = str | Path
SCHEMES = ("s3", "gs", "az")
WEB = ("http", "https")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SHORTENED = re.compile(rf"(?:{'|'.join(SCHEMES)}|https?):/[^/]")  # what pathlib makes of a URL


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder of this machine, as it is written."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def address(self) -> str:
        """The text that means the same wherever it is read."""
        return str(self.path.resolve())


@dataclass(frozen=True, slots=True)
class Prefix:
    """A place in an object store: what lies in ``bucket`` below ``path``, which may be empty."""

    scheme: str
    bucket: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.path}" if self.path else "")

    @property
    def address(self) -> str:
        """The text that means the same wherever it is read."""
        return str(self)


Place = Directory | Prefix


@dataclass(frozen=True, slots=True)
class WebFile:
    """A file of a web server. Shown without what may be a secret: user, password and query."""

    url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return urlsplit(self.url).scheme

    @property
    def bucket(self) -> str:
        """The server."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}{urlsplit(self.url).path}"


def scheme_of(location: Location) -> str | None:
    """Return the scheme of a URL, in small letters; None for a path."""
    found = _URL.match(location) if isinstance(location, str) else None
    return found[1].lower() if found else None


def place_of(location: Location | Place) -> Place:
    """Return the folder or the prefix that ``location`` names, or is; UsageError if it names none."""
    if isinstance(location, Directory | Prefix):
        return location
    if scheme_of(location) is None:
        return Directory(path_of(location))
    url = str(location)
    scheme, _, rest = url.partition("://")
    bucket, _, path = rest.partition("/")
    path = path.rstrip("/")
    if scheme.lower() not in SCHEMES or not re.fullmatch(r"[A-Za-z0-9._-]+", bucket):
        raise UsageError(
            "not a place in an object store",
            expected=f"{', '.join(f'{scheme}://BUCKET/PREFIX' for scheme in SCHEMES)}, or a path",
            found=hidden(url),
            cure="end points and credentials are not part of the URL; see docs/howto/object-store.md",
        )
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise UsageError(
            "not a prefix", where=hidden(url), expected="names between single slashes", found=path
        )
    return Prefix(scheme.lower(), bucket, path)


def path_of(location: Location) -> Path:
    """Return a location that is no URL as a path; UsageError if it was a URL before pathlib took it apart."""
    if not isinstance(location, str | PathLike):
        raise not_a_path(location)
    if isinstance(location, Path) and _SHORTENED.match(str(location)):
        raise UsageError(
            "a URL is not a path", found=f"Path({hidden(str(location))!r})", cure="give the URL as a string"
        )
    return Path(location)


def not_a_path(found: object) -> UsageError:
    """Return the error of a table, or anything else, where a path or a URL was wanted."""
    return UsageError(
        "neither a path nor a URL",
        found=f"a {type(found).__name__}",
        cure="give the path of a file or folder; mlless.MatrixFactorization and mlless.LogisticRegression "
        "take frames and arrays",
    )


def check_local(path: Path) -> None:
    """Raise UsageError if a path of this machine was wanted and a URL given."""
    if _SHORTENED.match(str(path)):
        raise UsageError(
            "this is written to a file of this machine",
            expected="a path",
            found=f"a URL, {hidden(str(path))}",
        )
