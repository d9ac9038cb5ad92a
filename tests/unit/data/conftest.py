"""What the tests of the data room share: source files, and the rows of a data set as they were."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlless.data.dataset import Dataset
from mlless.data.groups import ClicksGroup, RatingsGroup
from mlless.data.manifest import File

RatingRow = tuple[int, int, float]
ClickRow = tuple[int, int, tuple[tuple[int, float], ...]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Return a function that writes a source file; one named ``.gz`` is packed."""

    def write(name: str, text: str | bytes) -> Path:
        data = text.encode() if isinstance(text, str) else text
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def _ratings_in(dataset: Dataset, files: tuple[File, ...]) -> list[RatingRow]:
    ids = dataset.ids()
    rows: list[RatingRow] = []
    for file in files:
        if not file.rows:
            continue
        group = dataset.read(file)
        assert isinstance(group, RatingsGroup)
        assert len(group) == file.rows
        users, items = ids.users[group.users], ids.items[group.items]
        rows += zip(users.tolist(), items.tolist(), group.ratings.tolist(), strict=True)
    return rows


def _clicks_in(dataset: Dataset, files: tuple[File, ...]) -> list[ClickRow]:
    rows: list[ClickRow] = []
    for file in files:
        if not file.rows:
            continue
        group = dataset.read(file)
        assert isinstance(group, ClicksGroup)
        assert len(group) == file.rows
        indices = group.indices
        values = np.ones(len(indices)) if group.values is None else group.values
        for n, (start, stop) in enumerate(itertools.pairwise(group.starts.tolist())):
            features = tuple(zip(indices[start:stop].tolist(), values[start:stop].tolist(), strict=True))
            rows.append((int(group.numbers[n]), int(group.labels[n]), features))
    return rows


def _everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def ratings_in() -> Callable[[Dataset, tuple[File, ...]], list[RatingRow]]:
    """Return a function that gives the rows in files of a data set, in order, with original ids."""
    return _ratings_in


@pytest.fixture(scope="session")
def clicks_in() -> Callable[[Dataset, tuple[File, ...]], list[ClickRow]]:
    """Return a function that gives the rows in files of a data set: row number, label, features."""
    return _clicks_in


@pytest.fixture(scope="session")
def everything() -> Callable[[Path], dict[str, bytes]]:
    """Return a function that gives the bytes of every file below a folder."""
    return _everything
