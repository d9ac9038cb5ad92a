"""TOML files that come with the package, each known by a name; or one of a user's own, by its path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from mlless.decoding import explained
from mlless.errors import UsageError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Book:
    """The files in a ``folder`` of a ``package``, each of which is a ``kind`` of thing."""

    kind: str
    package: str
    folder: str

    def names(self) -> list[str]:
        """Return the names of those that come with the package."""
        return sorted(self._texts())

    def text(self, name: str) -> str:
        """Return the TOML of one of the package, or of the file ``name``; UsageError if it is neither."""
        texts = self._texts()
        if name in texts:
            return texts[name]
        try:
            return Path(name).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"not a {self.kind}", where=name, expected="text in TOML", found="other bytes"
            ) from error
        except OSError as error:
            expected = f"{', '.join(sorted(texts))}, or a TOML file"
            raise UsageError(f"no such {self.kind}", expected=expected, found=name) from error

    def read(self, name: str, form: type[_T], example: str) -> _T:
        """Return the TOML of ``name`` in this form; UsageError, with an ``example`` to copy, if it is not."""
        try:
            return msgspec.toml.decode(self.text(name), type=form)
        except msgspec.DecodeError as error:
            cure = f"to start from one: mlless {self.kind} {example}"
            raise UsageError(f"not a {self.kind}: {explained(error)}", where=name, cure=cure) from error

    def _texts(self) -> dict[str, str]:
        from importlib import resources  # here, for a cold worker knows tariffs, too, but never looks one up

        folder = resources.files(self.package) / self.folder
        files = (file for file in folder.iterdir() if file.name.endswith(".toml"))
        return {file.name.removesuffix(".toml"): file.read_text("utf-8") for file in files}
