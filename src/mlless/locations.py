"""Where data sets and runs are: a folder of this machine, or a prefix in an object store.

A location is a path, or a URL ``SCHEME://BUCKET/PREFIX``. What is behind a URL is opened by
``channels.opening``; nothing here does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mlless.errors import UsageError, hidden

Location = str | Path
SCHEMES = ("s3", "gs", "az")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SHORTENED = re.compile(rf"(?:{'|'.join(SCHEMES)}):/[^/]")  # what pathlib makes of a URL


@dataclass(frozen=True, slots=True)
class Prefix:
    """A place in an object store: what lies in ``bucket`` below ``path``, which may be empty."""

    scheme: str
    bucket: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.path}" if self.path else "")


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


def is_remote(location: Location) -> bool:
    """Return whether a location is a URL, not a path."""
    return isinstance(location, str) and _URL.match(location) is not None


def is_web(location: Location) -> bool:
    """Return whether a location is the address of a file of a web server."""
    return isinstance(location, str) and location.lower().startswith(("http://", "https://"))


def prefix_of(url: str) -> Prefix:
    """Return the place in an object store that ``url`` names; UsageError if it names none."""
    found = _URL.fullmatch(url)
    scheme, rest = (found[1].lower(), found[2]) if found else ("", "")
    bucket, _, path = rest.partition("/")
    path = path.rstrip("/")
    if scheme not in SCHEMES or not re.fullmatch(r"[A-Za-z0-9._-]+", bucket):
        raise UsageError(
            "not a place in an object store",
            expected=f"{', '.join(f'{scheme}://BUCKET/PREFIX' for scheme in SCHEMES)}, or a path",
            found=hidden(url),
            cure="end points and credentials are not part of the URL; see docs/howto-object-store.md",
        )
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise UsageError("not a prefix", where=url, expected="names between single slashes", found=path)
    return Prefix(scheme, bucket, path)


def absolute(location: Location) -> str:
    """Return the location as text that means the same wherever it is read."""
    if is_remote(location):
        return str(prefix_of(str(location)))
    return str(folder_of(location).resolve())


def folder_of(location: Location) -> Path:
    """Return the folder that ``location`` names; UsageError if it was a URL before pathlib took it apart."""
    if isinstance(location, Path) and _SHORTENED.match(str(location)):
        raise UsageError(
            "a URL is not a path", found=f"Path({str(location)!r})", cure="give the URL as a string"
        )
    return Path(location)


def check_local(path: Path) -> None:
    """Raise UsageError if a path of this machine was wanted and a URL given."""
    if _SHORTENED.match(str(path)):
        raise UsageError(
            "this is written to a file of this machine", expected="a path", found=f"a URL, {path}"
        )


def last_name(location: Location) -> str:
    """Return the last part of a location: what it is called."""
    return absolute(location).rpartition("/")[2]
