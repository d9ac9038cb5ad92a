"""Ratings in Parquet: types of columns, nulls and ranges, damaged files, no pyarrow."""

from __future__ import annotations

import decimal
import sys
from pathlib import Path

import pytest

from mlless.data.readers import open_source, ratings_parquet, read_ratings
from mlless.data.rows import RatingsRows
from mlless.errors import InputError, UsageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path: Path, **columns: object) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def read(path: Path, *, skip: bool = False, optional: bool = False) -> tuple[list[tuple[object, ...]], int]:
    chunks = list(read_ratings(open_source(path), skip_malformed=skip, rating_optional=optional))
    assert chunks[-1].done == path.stat().st_size
    rows = RatingsRows.join([chunk.rows for chunk in chunks])
    columns = [column.tolist() for column in rows.columns()]
    return list(zip(*columns, strict=True)), sum(chunk.skipped for chunk in chunks)


@pytest.mark.parametrize("ids", ["int8", "int64", "uint16", "uint64"])
@pytest.mark.parametrize("ratings", ["int8", "float16", "float32", "float64", "decimal128(5, 2)"])
def test_takes_every_numeric_type(tmp_path: Path, ids: str, ratings: str) -> None:
    type_ = pyarrow.decimal128(5, 2) if ratings.startswith("dec") else getattr(pyarrow, ratings)()
    values = [decimal.Decimal(n) for n in (5, 3, 1)] if ratings.startswith("dec") else [5, 3, 1]
    if ratings == "float16":
        values = pyarrow.array([5.0, 3.0, 1.0]).cast(pyarrow.float16())
    path = write(
        tmp_path / "r.parquet",
        movieId=pyarrow.array([7, 8, 7], getattr(pyarrow, ids)()),
        title=["a", "b", None],
        rating=values if ratings == "float16" else pyarrow.array(values, type_),
        userId=pyarrow.array([1, 1, 100], getattr(pyarrow, ids)()),
    )
    assert read(path) == ([(1, 7, 5.0), (1, 8, 3.0), (100, 7, 1.0)], 0)


def test_parquet_is_known_by_its_content_too(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings", user=[1], item=[2**63 - 1], rating=[3])
    assert read(path) == ([(1, 2**63 - 1, 3.0)], 0)


def test_ratings_may_be_optional(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", user=[1], item=[2])
    assert read(path, optional=True) == ([(1, 2)], 0)
    with pytest.raises(InputError, match="expected columns user, item and rating"):
        read(path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [1, -1, 3], "a user id that is a whole number from 0 to 2^63-1, found '-1'"),
        ("item", [1, None, 3], "an item id that is a whole number from 0 to 2^63-1, found 'None'"),
        ("item", pyarrow.array([1, 2**63, 3], pyarrow.uint64()), "found '9223372036854775808'"),
        ("rating", [1.0, None, 3.0], "a rating that is a finite number, found 'None'"),
        ("rating", [1.0, float("nan"), 3.0], "a rating that is a finite number, found 'nan'"),
        ("rating", [1.0, 1e300, 3.0], "a rating that is a finite number, found '1e+300'"),
    ],
)
def test_a_malformed_row_is_named_or_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, values: object, message: str
) -> None:
    monkeypatch.setattr(ratings_parquet, "ROWS", 1)
    columns = {"user": [1, 2, 3], "item": [1, 2, 3], "rating": [1, 2, 3], column: values}
    path = write(tmp_path / "r.parquet", **columns)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, row 2: malformed row: expected ")
    assert message in str(caught.value)
    assert read(path, skip=True) == ([(1, 1, 1.0), (3, 3, 3.0)], 1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["a"], "item": [1], "rating": [1]}, "column user: wrong type: expected an integer column"),
        ({"user": [1], "item": [1.0], "rating": [1]}, "column item: wrong type"),
        (
            {"user": [1], "item": [1], "rating": [True]},
            "column rating: wrong type: expected a numeric column",
        ),
        ({"who": [1], "item": [1], "rating": [1]}, "found who, item, rating"),
    ],
)
def test_columns_of_other_names_or_types_are_refused(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "r.parquet", **columns))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pyarrow.table([[1], [1], [1], [1]], names=["user", "item", "rating", "user"])
    parquet.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(InputError, match="not a table of ratings"):
        read(tmp_path / "r.parquet")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data[:9], lambda data: b"1,2,3\n" * 9]
)
def test_a_damaged_file_is_an_error(tmp_path: Path, damage: object) -> None:
    path = write(tmp_path / "r.parquet", user=[1], item=[2], rating=[3])
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match="a damaged or truncated Parquet file"):
        read(path)


def test_damaged_pages_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", user=list(range(9999)), item=[2] * 9999, rating=[3] * 9999)
    data = bytearray(path.read_bytes())
    data[4:4000] = bytes(3996)
    path.write_bytes(data)
    with pytest.raises(InputError, match="a damaged or truncated Parquet file"):
        read(path)


def test_without_pyarrow_the_cure_is_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "r.parquet", user=[1], item=[2], rating=[3])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"mlless\[parquet\]"):
        read(path)
