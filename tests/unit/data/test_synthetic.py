"""Generated data: of the asked shape, seeded, and as predictable as it says."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlless.data import synthetic
from mlless.data.readers import open_source, read_clicks, read_ratings
from mlless.data.rows import ClicksRows, RatingsRows
from mlless.data.synthetic import write_clicks, write_ratings
from mlless.errors import ChannelError, UsageError


def ratings(path: Path) -> RatingsRows:
    return RatingsRows.join([chunk.rows for chunk in read_ratings(open_source(path))])


def test_ratings_have_the_asked_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_BLOCK", 1000)
    floor = write_ratings(tmp_path / "r.csv", users=200, items=80, rows=5000, noise=0.4)
    rows = ratings(tmp_path / "r.csv")
    assert rows.ratings is not None
    assert len(set(zip(rows.users.tolist(), rows.items.tolist(), strict=True))) == len(rows) == 5000
    assert rows.users.min() >= 1
    assert rows.users.max() <= 200
    assert rows.items.min() >= 1
    assert rows.items.max() <= 80
    assert set(rows.ratings.tolist()) <= {n / 2 for n in range(1, 11)}
    assert 0.35 < floor < 0.5
    assert float(rows.ratings.std()) > 1.3 * floor  # there is something to learn
    by_item = np.sort(np.bincount(rows.items))[::-1]
    by_user = np.bincount(rows.users)
    assert by_item[0] > 2 * by_item[40]
    assert by_user.max() > 3 * np.median(by_user)


@pytest.mark.parametrize("rows", [1, 17, 35])
def test_a_table_may_be_full(tmp_path: Path, rows: int) -> None:
    write_ratings(tmp_path / "r.csv", users=5, items=7, rows=rows)
    assert len(ratings(tmp_path / "r.csv")) == rows


def test_clicks_have_the_asked_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_BLOCK", 1000)
    loss = write_clicks(tmp_path / "c.svm", rows=3000, features=500, per_row=20)
    rows = ClicksRows.join([chunk.rows for chunk in read_clicks(open_source(tmp_path / "c.svm"))])
    share = float(rows.labels.mean())
    assert len(rows) == 3000
    assert rows.indices.max() < 500
    assert 10 < len(rows.indices) / len(rows) <= 20
    assert 0.15 < share < 0.45
    constant = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert 0.1 < loss < 0.9 * constant


@pytest.mark.parametrize(
    "make",
    [
        lambda path, seed: write_ratings(path, users=20, items=30, rows=200, seed=seed),
        lambda path, seed: write_clicks(path, rows=100, features=50, per_row=5, seed=seed),
    ],
)
def test_the_seed_decides_the_bytes(tmp_path: Path, make: Callable[[Path, int], float]) -> None:
    figures = [
        make(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1), ("a.gz", 0), ("b.gz", 0))
    ]
    a, b, c, packed, again = ((tmp_path / name).read_bytes() for name in ("a", "b", "c", "a.gz", "b.gz"))
    assert a == b != c
    assert packed == again
    assert gzip.decompress(packed) == a
    assert figures[0] == figures[1] == figures[3] != figures[2]


def test_impossible_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at most users x items"):
        write_ratings(tmp_path / "r.csv", users=2, items=2, rows=5)
    with pytest.raises(UsageError, match="all of them"):
        write_clicks(tmp_path / "c.svm", rows=2, features=2, per_row=3)


def test_no_place_for_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="cannot write"):
        write_clicks(tmp_path / "none" / "c.svm", rows=2, features=2, per_row=1)
