"""Which parts a source has: files, patterns, folders of parts; here, in object stores, or of web servers."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path, PurePosixPath

from mlless.channels.opening import open_remote
from mlless.data.manifest import MANIFEST
from mlless.data.readers.parts import STANDARD_INPUT, FilePart, Part, PipePart, RemotePart, unreadable
from mlless.errors import InputError, MissingObject, UsageError, hidden
from mlless.locations import SCHEMES, WEB, Prefix, WebFile, not_a_path, path_of, place_of, scheme_of

Sources = str | Path | Sequence[str | Path]

# Folders that look like parts of a table, but hold rows that were deleted as well.
_TABLES = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table"}


def parts_of(sources: Sources) -> tuple[str, tuple[Part, ...]]:
    """Return what ``sources`` are called together, and their parts: in the order given, folders sorted.

    Parts that were found and are empty are left out. InputError if there is nothing to be found;
    UsageError if a part is named twice.
    """
    given = [one if isinstance(one, str) else str(path_of(one)) for one in listed(sources)]
    if not given:
        raise UsageError("no source", expected="at least one")
    parts = [part for one in given for part in _parts_of(one) if part.size or not part.found]
    if not parts:
        raise InputError("nothing but empty files", where=together(given))
    seen: set[str] = set()
    for part in parts:
        if part.address in seen:
            cure = "name it once, or its rows would count twice"
            raise UsageError("a source is named twice", where=part.name, cure=cure)
        seen.add(part.address)
    return together(given), tuple(parts)


def listed(sources: Sources) -> Sequence[str | Path]:
    """Return the sources one by one; UsageError for a table, which is no list of them."""
    if isinstance(sources, str | PathLike):
        return [sources]
    if not isinstance(sources, Sequence):
        raise not_a_path(sources)
    return sources


def together(given: Sequence[str]) -> str:
    """Return what sources are called together, fit to be shown."""
    first = _shown(given[0])
    return first if len(given) == 1 else f"{first} and {len(given) - 1} more"


def _shown(given: str) -> str:
    if given == STANDARD_INPUT:
        return "standard input"
    return str(WebFile(given)) if scheme_of(given) in WEB else hidden(given)


def _parts_of(given: str) -> Iterator[Part]:
    path, scheme = Path(given), scheme_of(given)
    if given == STANDARD_INPUT:
        yield PipePart(None)
    elif scheme in WEB:
        file = WebFile(given)
        yield RemotePart(open_remote(file), "", str(file))
    elif scheme in SCHEMES:
        yield from _objects(given)
    elif scheme is not None:
        expected = f"a path, {STANDARD_INPUT}, or " + ", ".join(f"{one}://" for one in (*SCHEMES, "https"))
        raise UsageError("raw rows cannot be read from there", expected=expected, found=hidden(given))
    elif path.is_dir() or (glob.has_magic(given) and not path.exists()):
        for found in sorted(
            _files_below(path) if path.is_dir() else _matches(given), key=lambda one: one.parts
        ):
            yield FilePart(found, found=True)
    elif path.exists() and not path.is_file():
        yield PipePart(path)
    else:
        yield FilePart(path)  # which tells what is wrong


def _files_below(folder: Path) -> set[Path]:
    paths: set[Path] = set()
    for here, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            _check_raw(name, here)
        folders[:] = [name for name in folders if _is_data(name)]
        paths |= {Path(here, name) for name in files if _is_data(name)}
    if not paths:
        raise _no_files(str(folder))
    return paths


def _matches(pattern: str) -> set[Path]:
    meant = Path(pattern).parts
    paths: set[Path] = set()
    for path in map(Path, glob.glob(pattern, recursive=True)):
        if all(_is_data(name) or name in meant for name in path.parts):
            paths |= _files_below(path) if path.is_dir() else {path}
    if not paths:
        raise _no_match(pattern)
    return paths


def _objects(url: str) -> Iterator[Part]:
    """Yield the object of that name; or if there is none, what lies below it, or matches it."""
    prefix = place_of(url)
    assert isinstance(prefix, Prefix)
    if prefix.path:
        objects = open_remote(prefix)
        with contextlib.suppress(MissingObject):
            yield RemotePart(objects, "", str(prefix), objects.size(""))
            return
    names = prefix.path.split("/") if prefix.path else []
    fixed = next((at for at, name in enumerate(names) if glob.has_magic(name)), len(names))
    root = Prefix(prefix.scheme, prefix.bucket, "/".join(names[:fixed]))
    objects = open_remote(root)
    pattern = names[fixed:]
    found = sorted((path.split("/"), size) for path, size in objects.below())
    for path, _ in [] if pattern else found:
        for depth, name in enumerate(path):
            _check_raw(name, "/".join((str(root), *path[:depth])))
    found = [(path, size) for path, size in found if _fits(path, pattern)]
    if not found:
        raise (_no_match if pattern else _no_files)(hidden(url))
    for path, size in found:
        below = "/".join(path)
        yield RemotePart(objects, below, f"{root}/{below}", size, found=True)


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path, or a folder on its way, matches ``pattern``, and is data beyond it."""
    if not pattern:
        return all(map(_is_data, names))
    if pattern[0] == "**":
        return any(
            _fits(names[at:], pattern[1:]) and all(map(_is_data, names[:at])) for at in range(len(names))
        )
    if not names or not fnmatchcase(names[0], pattern[0]):
        return False
    return (_is_data(names[0]) or names[0] == pattern[0]) and _fits(names[1:], pattern[1:])


def _check_raw(name: str, where: str) -> None:
    """Raise InputError if a folder in which there is that ``name`` is a data set, or more than its files."""
    if name == MANIFEST:
        raise InputError("a data set, not raw rows", where=where, cure="train on it as it is")
    if name in _TABLES:
        raise InputError(
            f"{_TABLES[name]}, some of whose files hold rows that are no longer in it",
            where=where,
            cure="write it anew as plain Parquet, and name that folder",
        )


def _no_files(place: str) -> InputError:
    return InputError("no files of rows here", where=place, cure="check the name")


def _no_match(pattern: str) -> InputError:
    return InputError("no file matches this pattern", where=pattern, cure="check it, and its quotes")


def _is_data(name: str) -> bool:
    """Return whether a file or folder of this name is data: not hidden, a mark, or a checksum."""
    return not name.startswith((".", "_")) and PurePosixPath(name).suffix != ".crc"


def _raise(error: OSError) -> None:
    raise unreadable(str(error.filename), error) from error
