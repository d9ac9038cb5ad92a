"""A new folder that appears whole or not at all."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlless.data.manifest import IDS, MANIFEST
from mlless.errors import ChannelError, UsageError

_OWN = re.compile(rf"{re.escape(MANIFEST)}|{IDS}(-[0-9a-f]{{8}})?\.safetensors|train|validation")


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
    _check_names({entry.name for entry in dest.iterdir()}, "folder", where)
    if not overwrite:
        raise UsageError(
            "there is already such a folder", where=where, cure="choose another, or add --overwrite"
        )


def check_prefix_replaceable(names: set[str], where: str, overwrite: bool) -> None:
    """Raise UsageError unless a data set may be put where an object store has ``names``."""
    _check_names(names, "prefix", where)
    if names and not overwrite:
        raise UsageError(
            "there is already a data set", where=where, cure="choose another, or add --overwrite"
        )


def _check_names(names: set[str], what: str, where: str) -> None:
    others = sorted(name for name in names if not _OWN.fullmatch(name))
    if names and (MANIFEST not in names or others):
        others = others or sorted(names)
        raise UsageError(
            f"this {what} is not a data set, so it is not replaced",
            where=where,
            found=", ".join(others[:3]) + (", ..." if len(others) > 3 else ""),
            cure=f"choose another {what}",
        )


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
