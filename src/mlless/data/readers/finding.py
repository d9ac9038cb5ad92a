"""Which parts a source has: files, patterns, folders of parts, standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from mlless.data.readers.parts import STANDARD_INPUT, FilePart, Part, PipePart, unreadable
from mlless.errors import InputError, UsageError, hidden

Sources = str | Path | Sequence[str | Path]

# Folders that look like parts of a table, but hold rows that were deleted as well.
_TABLES = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table"}


def parts_of(sources: Sources) -> tuple[str, tuple[Part, ...]]:
    """Return what ``sources`` are called together, and their parts: in the order given, folders sorted.

    InputError if there is nothing to be found; UsageError if a part is named twice.
    """
    given = [os.fspath(one) for one in ([sources] if isinstance(sources, str | Path) else sources)]
    if not given:
        raise UsageError("no source", expected="at least one")
    parts = [part for one in given for part in _parts_of(one)]
    seen: set[str] = set()
    for part in parts:
        if part.place in seen:
            cure = "name it once, or its rows would count twice"
            raise UsageError("a source is named twice", where=part.name, cure=cure)
        seen.add(part.place)
    return together(given), tuple(parts)


def together(given: Sequence[str]) -> str:
    """Return what sources are called together, fit to be shown."""
    first = "standard input" if given[0] == STANDARD_INPUT else hidden(given[0])
    return first if len(given) == 1 else f"{first} and {len(given) - 1} more"


def _parts_of(given: str) -> Iterator[Part]:
    path = Path(given)
    if given == STANDARD_INPUT:
        yield PipePart(None)
    elif path.is_dir():
        yield from _files_below(path, given)
    elif path.exists():
        yield FilePart(path) if path.is_file() else PipePart(path)
    elif glob.has_magic(given):
        yield from _matches(given)
    else:
        yield FilePart(path)  # which tells what is wrong


def _files_below(folder: Path, given: str) -> Iterator[Part]:
    paths = []
    for here, folders, files in os.walk(folder, onerror=_raise):
        if found := next((name for name in folders if name in _TABLES), None):
            raise InputError(
                f"{_TABLES[found]}, some of whose files hold rows that are no longer in it",
                where=here,
                cure="write it anew as plain Parquet, and name that folder",
            )
        folders[:] = [name for name in folders if _is_data(name)]
        paths += [Path(here, name) for name in files if _is_data(name)]
    if not paths:
        raise InputError("no files of rows in this folder", where=given, cure="check its name")
    for path in sorted(paths, key=lambda path: path.parts):
        yield FilePart(path, found=True)


def _matches(pattern: str) -> Iterator[Part]:
    paths = sorted(map(Path, glob.glob(pattern, recursive=True)), key=lambda path: path.parts)
    meant = Path(pattern).parts
    paths = [path for path in paths if all(_is_data(name) or name in meant for name in path.parts)]
    if not paths:
        raise InputError("no file matches this pattern", where=pattern, cure="check it, and its quotes")
    for path in paths:
        if path.is_dir():
            yield from _files_below(path, str(path))
        else:
            yield FilePart(path, found=True)


def _is_data(name: str) -> bool:
    """Return whether a file or folder of this name is data: not hidden, a mark, or a checksum."""
    return not name.startswith((".", "_")) and PurePosixPath(name).suffix != ".crc"


def _raise(error: OSError) -> None:
    raise unreadable(str(error.filename), error) from error
