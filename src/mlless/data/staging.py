"""A new folder that appears whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlless.data.manifest import IDS, MANIFEST
from mlless.errors import ChannelError, UsageError

_OWN = {MANIFEST, IDS, "train", "validation"}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system says about writing ``path`` into a ChannelError."""
    try:
        yield
    except OSError as error:
        cure = "check free space and permissions there, or choose another folder"
        raise ChannelError(f"cannot write: {error.strerror or error}", where=str(path), cure=cure) from error


def check_replaceable(dest: Path, overwrite: bool) -> None:
    """Raise UsageError unless a data set may be put at ``dest``."""
    if not dest.exists() and not dest.is_symlink():
        return
    where = str(dest)
    if not dest.is_dir():
        raise UsageError("there is already a file of this name", where=where, cure="choose another name")
    names = {entry.name for entry in dest.iterdir()}
    if names and (MANIFEST not in names or names - _OWN):
        others = sorted(names - _OWN)
        raise UsageError(
            "this folder is not a data set, so it is not replaced",
            where=where,
            found=", ".join(others[:3]) + (", ..." if len(others) > 3 else ""),
            cure="choose another folder",
        )
    if not overwrite:
        raise UsageError("there is already such a folder", where=where, cure="choose another, or --overwrite")


@contextmanager
def staged(dest: Path) -> Iterator[Path]:
    """Give an empty folder beside ``dest``; what is then in its ``new`` takes the place of ``dest``.

    On any failure ``dest`` stays as it was, and nothing else is left.
    """
    missing = [folder for folder in dest.parents if not folder.exists()]
    work = dest.parent / f".{dest.name}.part-{secrets.token_hex(4)}"
    done = False
    try:
        with writing(work):
            (work / "new").mkdir(parents=True)
        yield work
        with writing(dest):
            _replace(dest, work / "new", work / "old")
        done = True
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for folder in [] if done else missing:
            _remove_empty(folder)


def _replace(dest: Path, new: Path, old: Path) -> None:
    try:
        if dest.exists():
            dest.rename(old)
        new.rename(dest)
    finally:
        if old.exists() and not dest.exists():
            old.rename(dest)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # not made, or in use by someone else by now
