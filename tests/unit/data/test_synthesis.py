"""Generated data of the published shapes, and numbers as text."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data import synthetic_columns
from mlless.data.digits import hexadecimal, lines, tenths, whole
from mlless.data.features import ABSENT, CRITEO, FeatureMap
from mlless.data.readers import open_source, read_columns, read_ratings
from mlless.data.rows import ColumnRows, RatingsRows
from mlless.data.synthesis import synthesize
from mlless.errors import ChannelError, UsageError


@given(st.lists(st.tuples(st.integers(-(2**40), 2**63 - 1), st.booleans()), min_size=1))
def test_whole_numbers_are_written_as_python_does(rows: list[tuple[int, bool]]) -> None:
    numbers, there = np.array([n for n, _ in rows], np.int64), np.array([t for _, t in rows])
    expected = "".join(f"{n if t else ''};\n" for n, t in rows)
    assert lines([whole(numbers, there), b";\n"]).decode() == expected
    assert lines([whole(numbers), b"\n"]).decode().split() == [str(n) for n, _ in rows]


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_tenths_and_hexadecimal(rows: list[int]) -> None:
    numbers = np.array(rows)
    assert lines([tenths(numbers / 10), b"\n"]).decode().split() == [f"{n / 10:.1f}" for n in rows]
    there = numbers % 3 > 0
    expected = "".join(f"{n:08x}\n" if n % 3 else "\n" for n in rows)
    assert lines([hexadecimal(numbers.astype(np.uint32), there), b"\n"]).decode() == expected


@pytest.mark.parametrize(
    ("kind", "users", "items", "scale"), [("ml-1m", 6040, 3706, 1), ("ml-20m", 138_493, 26_744, 2)]
)
def test_ratings_shrink_with_their_density(
    tmp_path: Path, kind: str, users: int, items: int, scale: int
) -> None:
    made = synthesize(kind, tmp_path / "r.csv", rows=10_000)  # type: ignore[arg-type]
    rows = RatingsRows.join([chunk.rows for chunk in read_ratings(open_source(made.path))])
    assert rows.ratings is not None
    full = {"ml-1m": 1_000_209, "ml-20m": 20_000_263}[kind]
    assert len(rows) == made.rows == 10_000
    assert rows.users.max() <= math.ceil(users * math.sqrt(10_000 / full))
    assert rows.items.max() <= math.ceil(items * math.sqrt(10_000 / full))
    assert set((rows.ratings * scale).tolist()) <= set(range(1, 5 * scale + 1))
    assert made.metric == "rmse"
    assert 0.4 < made.floor < 0.7


def test_clicks_have_criteos_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_columns, "ROWS", 3000)
    made = synthesize("criteo", tmp_path / "c.tsv", rows=10_000, seed=2)
    features = FeatureMap(1, CRITEO, 1 << 31, 0, "standard", ())
    chunks = read_columns(open_source(made.path), features)
    rows = ColumnRows.join([chunk.rows for chunk in chunks])
    assert len(rows) == 10_000
    share = float(rows.labels.mean())
    assert 0.2 < share < 0.3
    constant = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert 0.3 < made.floor < 0.9 * constant
    missing = np.isnan(rows.numeric).mean(axis=0)
    assert missing.max() > 0.3
    assert missing.min() < 0.1
    assert np.nanmin(rows.numeric) < 0
    assert (rows.categories == ABSENT).mean(axis=0).max() > 0.3
    for column, values in enumerate(synthetic_columns.VALUES):
        found, counts = np.unique(rows.categories[:, column], return_counts=True)
        assert len(found) <= values + 1
        assert counts.max() > 1.5 * counts.mean() or values < 5


def test_the_seed_decides_the_bytes(tmp_path: Path) -> None:
    for name, seed in (("a.tsv", 0), ("b.tsv", 0), ("c.tsv", 1), ("d.tsv.gz", 0)):
        synthesize("criteo", tmp_path / name, rows=500, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.tsv", "b.tsv", "c.tsv"))
    assert a == b != c
    assert (tmp_path / "d.tsv.gz").stat().st_size < len(a)


def test_an_interrupted_file_is_not_left(tmp_path: Path) -> None:
    def interrupt(fraction: float, what: str) -> None:
        raise KeyboardInterrupt

    for kind in ("criteo", "ml-1m"):
        with pytest.raises(KeyboardInterrupt):
            synthesize(kind, tmp_path / "x.gz", rows=10, progress=interrupt)  # type: ignore[arg-type]
    with pytest.raises(ChannelError, match="cannot write"):
        synthesize("criteo", tmp_path / "none" / "x", rows=5)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    for kind, rows, seed, says in (
        ("ml-3m", 5, 0, "unknown kind"),
        ("criteo", 0, 0, "number of rows"),
        ("criteo", 5, -1, "seed"),
    ):
        with pytest.raises(UsageError, match=says):
            synthesize(kind, tmp_path / "x", rows=rows, seed=seed)  # type: ignore[arg-type]
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UsageError, match="`overwrite`"):
        synthesize("criteo", tmp_path / "x", rows=5)
    with pytest.raises(UsageError, match="already"):
        synthesize("criteo", tmp_path, rows=5, overwrite=True)
    synthesize("ml-1m", tmp_path / "x", rows=1, overwrite=True)
    assert (tmp_path / "x").read_text().startswith("userId")
