"""MovieLens' ratings from their publisher, GroupLens at the University of Minnesota."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast, get_args

from mlless.data.download import BLOCK, download, read_small
from mlless.data.progress import ShowProgress, unseen
from mlless.data.staging import writing
from mlless.errors import ChannelError, InputError, UsageError

Name = Literal["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-latest-small"]
ADDRESS = "https://files.grouplens.org/datasets/movielens"
ADDRESS_VARIABLE = "MLLESS_MOVIELENS_URL"
TERMS = """MovieLens data belong to GroupLens, University of Minnesota, who allow research on conditions:
  - state or imply no endorsement by the University of Minnesota or GroupLens;
  - acknowledge the data set in publications (Harper and Konstan, 2015, doi.org/10.1145/2827872);
  - do not redistribute it without separate permission;
  - no commercial or revenue-bearing use without permission from GroupLens.
What binds is the publisher's own text, in the README file that comes with the data."""
_LARGEST = 1 << 30  # bytes of an unpacked file; the largest published, of ml-20m, has 533 MB
_MD5 = re.compile(rb"\b[0-9a-f]{32}\b")


@dataclass(frozen=True, slots=True)
class _Archive:
    """What is taken out of an archive. ``ml-latest-small`` changes over time and has no checksum."""

    ratings: str
    readme: str
    checksum: bool = True


_ARCHIVES: dict[str, _Archive] = {
    "ml-100k": _Archive("ml-100k/u.data", "ml-100k/README"),
    "ml-1m": _Archive("ml-1m/ratings.dat", "ml-1m/README"),
    "ml-10m": _Archive("ml-10M100K/ratings.dat", "ml-10M100K/README.html"),
    "ml-20m": _Archive("ml-20m/ratings.csv", "ml-20m/README.txt"),
    "ml-latest-small": _Archive("ml-latest-small/ratings.csv", "ml-latest-small/README.txt", checksum=False),
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """The files that `mlless.fetch` has brought.

    Attributes
    ----------
    ratings : Path
        The ratings, which `mlless.partition` reads.
    readme : Path or None
        The publisher's README, if it was in the archive.
    md5 : str
        The MD5 sum of the archive.
    checked : bool
        Whether this sum was compared with the one that the publisher names.
    """

    ratings: Path
    readme: Path | None
    md5: str
    checked: bool


def fetch(
    name: Name,
    dest: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: ShowProgress = unseen,
    tell: Callable[[str], None] = lambda text: None,
) -> Fetched:
    """Fetch a MovieLens data set from its publisher into a folder.

    The archive is compared with the MD5 sum that the publisher keeps beside it. Ratings and README are taken
    out, and the archive is deleted. A fetch that was interrupted goes on where it stopped.

    Parameters
    ----------
    name : str
        One of ``ml-100k``, ``ml-1m``, ``ml-10m``, ``ml-20m`` and ``ml-latest-small``.
    dest : str or path, optional
        The folder. By default it has the name of the data set.
    overwrite : bool, default False
        Whether to replace ratings that are there.
    progress : callable, optional
        Is called with the share that is done and with what is done just now.
    tell : callable, optional
        Is called with the publisher's terms before anything is fetched.

    Raises
    ------
    ChannelError
        The publisher cannot be reached.
    InputError
        The archive is not the one that was published.
    """
    if name not in get_args(Name):
        raise UsageError("unknown data set", expected=" or ".join(get_args(Name)), found=repr(name))
    wanted, folder = _ARCHIVES[name], Path(dest if dest is not None else name)
    ratings, readme = (folder / Path(member).name for member in (wanted.ratings, wanted.readme))
    if ratings.exists() and not overwrite:
        raise UsageError(
            "these ratings are already there", where=str(ratings), cure="use them, or add --overwrite"
        )
    tell(TERMS)
    url = f"{os.environ.get(ADDRESS_VARIABLE, ADDRESS).rstrip('/')}/{name}.zip"
    # The sum comes first: it is small, so who is offline hears of it at once.
    published = _published_sum(f"{url}.md5") if wanted.checksum else None
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}.zip"
    try:
        download(url, archive, progress)
    except ChannelError:
        with suppress(OSError):
            folder.rmdir()  # if it is empty; a part stays, to be gone on with
        raise
    try:
        found = _sum_of(archive)
        if published not in (None, found):
            raise InputError(
                "not the archive that was published",
                where=url,
                expected=f"MD5 {published}",
                found=found,
                cure="try again later; nothing of it was kept",
            )
        progress(1.0, "unpacking")
        with_readme = _unpack(archive, {wanted.ratings: ratings, wanted.readme: readme}, wanted.ratings)
    finally:
        archive.unlink(missing_ok=True)
    return Fetched(ratings, readme if with_readme else None, found, published is not None)


def _published_sum(url: str) -> str:
    text = read_small(url)
    found = _MD5.search(text.lower())
    if not found:
        raise InputError("no MD5 sum", where=url, found=repr(text[:40]), cure="try again later")
    return found[0].decode()


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, members: dict[str, Path], needed: str) -> bool:
    """Take the ``members`` out to where they belong; return whether all were there.

    Only names that we know are asked for, and they go to places that we chose: no path of the
    archive is ever followed. Sizes are bounded by what comes out, not by what the archive claims.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            there = set(opened.namelist())
            if needed not in there:
                raise InputError("no ratings in this archive", where=archive.name, expected=needed)
            for member, path in members.items():
                if member in there:
                    with opened.open(member) as source:
                        _write_bounded(cast(BinaryIO, source), path, f"{archive.name}, {member}")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(
            "a damaged archive", where=archive.name, found=str(error), cure="try again"
        ) from error
    return members.keys() <= there


def _write_bounded(source: BinaryIO, path: Path, where: str) -> None:
    part, left = path.with_name(path.name + ".part"), _LARGEST
    try:
        with writing(path):
            file = part.open("wb")
        with file:
            while block := source.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise InputError(
                        "a file larger than it can be", where=where, expected=f"{_LARGEST} bytes"
                    )
                with writing(path):
                    file.write(block)
        with writing(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
