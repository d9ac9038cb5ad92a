"""Tables of clicks: the same rows from text and Parquet, and every kind of trouble named."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from mlless.data.features import ABSENT, CRITEO, FeatureMap, Layout
from mlless.data.hashing import LONGEST_TOKEN
from mlless.data.readers import Reading, open_source, parquet, read_columns, read_ratings, reading_of
from mlless.data.rows import ColumnRows
from mlless.errors import InputError, UsageError

Write = Callable[[str, str | bytes], Path]

LAYOUT = Layout("clicked", ("age", "price"), ("site", "device"))
MAP = FeatureMap(1, LAYOUT, 1 << 16, 0, "standard", ())
TEXT = (
    "device,clicked,age,price,site,unused\n"
    "phone,1,31,1.5,news,x\n"
    ",0,,-2e3,shop,y\n"
    "tablet,-1,7,,,\n"
    "phone,1,31,1.5,\u00fcber,x\n"
)


def read(
    path: Path, features: FeatureMap = MAP, *, skip: bool = False, labelled: bool = True, **options: Any
) -> ColumnRows:
    source = open_source(path, format=features.format)
    reading = Reading(skip_malformed=skip, **options)
    chunks = list(read_columns(source, features, reading, labelled=labelled))
    return ColumnRows.join([chunk.rows for chunk in chunks])


def same(a: ColumnRows, b: ColumnRows) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
        for x, y in zip(astuple(a), astuple(b), strict=True)
    )


def test_columns_are_found_by_name(write: Write) -> None:
    rows = read(write("clicks.csv", TEXT))
    assert rows.labels.tolist() == [1, 0, 0, 1]
    assert rows.numbers.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(rows.numeric, [[31, 1.5], [np.nan, -2000], [7, np.nan], [31, 1.5]])
    absent = rows.categories == ABSENT
    assert absent.tolist() == [[False, False], [False, True], [True, False], [False, False]]
    assert rows.categories[0, 1] == rows.categories[3, 1]
    assert len(set(rows.categories[~absent].tolist())) == 5


@pytest.mark.parametrize("change", ["crlf", "quotes", "blank", "gzip", "mark", "no end", "order"])
def test_the_form_of_the_text_does_not_matter(write: Write, change: str) -> None:
    plain, name = read(write("clicks.csv", TEXT)), "other.csv"
    text: str | bytes = {
        "crlf": TEXT.replace("\n", "\r\n"),
        "quotes": TEXT.replace("phone,1", '"phone",1').replace("7,,,", '7,,"","a,b"'),
        "blank": TEXT.replace("shop,y\n", "shop,y\n\n"),
        "mark": "\ufeff" + TEXT,
        "no end": TEXT.removesuffix("\n"),
        "order": "".join(",".join(reversed(line.split(","))) + "\n" for line in TEXT.splitlines()),
    }.get(change, TEXT)
    if change == "gzip":
        name = "other.csv.gz"
    assert same(read(write(name, text)), plain)


def test_criteos_layout_has_no_header_and_may_lack_the_label(write: Write) -> None:
    features = FeatureMap(1, CRITEO, 1 << 18, 0, "standard", ())
    numbers = [str(n) if n % 3 else "" for n in range(-1, 12)]
    words = [f"{n:08x}" if n % 4 else "" for n in range(26)]
    line = "\t".join([*numbers, *words])
    rows = read(write("c.tsv", f"1\t{line}\n0\t{line}\n"), features)
    assert open_source(write("c.tsv", f"1\t{line}\n")).format == "criteo"
    assert rows.labels.tolist() == [1, 0]
    assert np.isnan(rows.numeric[0]).sum() == 4
    assert (rows.categories[0] == ABSENT).sum() == 7
    bare = read(write("test.tsv", f"{line}\n{line}\n"), features, labelled=False)
    np.testing.assert_array_equal(bare.categories, rows.categories)
    with pytest.raises(InputError, match="40 columns separated by tabs, found '39: "):
        read(write("test.tsv", f"{line}\n{line}\n"), features)
    with pytest.raises(InputError, match=r"line 2: malformed line.*40 columns"):
        read(write("c.tsv", f"1\t{line}\n1\t{line}\tmore\n"), features)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("phone,2,31,1.5,news,x", "expected a label of 0 or 1"),
        ("phone,,31,1.5,news,x", "expected a label of 0 or 1"),
        ("phone,1,old,1.5,news,x", "a finite number or nothing in column age, found 'old'"),
        ("phone,1,3,1e99,news,x", "in column price"),
        ("phone,1,31,1.5,news", "6 columns separated by ',', found '5: "),
        (f"{'x' * 5000},1,31,1.5,news,x", f"at most {LONGEST_TOKEN} bytes in column device"),
    ],
)
def test_a_malformed_line_is_named_or_left_out(write: Write, line: str, says: str) -> None:
    path = write("bad.csv", f"{TEXT}{line}\nphone,0,1,1,news,x\n")
    with pytest.raises(InputError, match="line 6: malformed line") as caught:
        read(path)
    assert says in str(caught.value)
    rows = read(path, skip=True)
    assert rows.labels.tolist() == [1, 0, 0, 1, 0]
    assert rows.numbers.tolist() == [0, 1, 2, 3, 5]


def test_missing_and_doubled_columns_are_named(write: Write) -> None:
    with pytest.raises(InputError, match=r"columns are missing.*price"):
        read(write("a.csv", "clicked,age,site,device\n1,2,a,b\n"))
    with pytest.raises(InputError, match=r"columns of one name.*See to age"):
        read(write("a.csv", "clicked,age,age,price,site,device\n1,2,2,2,a,b\n"))
    with pytest.raises(InputError, match="columns are missing"):
        read(write("a.csv", "age,price,site,device\n1,2,a,b\n"))
    assert len(read(write("a.csv", "age,price,site,device\n1,2,a,b\n"), labelled=False)) == 1
    with pytest.raises(InputError, match="a quote that is not closed"):
        read(write("a.csv", f'{TEXT}phone,1,"31,1.5,news,x\n'))
    with pytest.raises(UsageError, match="not a table of clicks"):
        read_columns(open_source(write("u.data", "1\t2\t3\n")), MAP)
    with pytest.raises(UsageError, match="not a source of ratings"):
        read_ratings(open_source(write("a.csv", TEXT), format="columns"))


def test_labels_may_be_any_two(write: Write, tmp_path: Path) -> None:
    for no, yes in (("no", "yes"), ("1", "2"), ("2", "1"), ("0.0", "1.0"), ("-", "NA")):
        path = write("c.csv", f"clicked,site\n{yes},a\n{no},b\n{yes},c\n")
        told = FeatureMap(1, Layout("clicked", (), ("site",), labels=(no, yes)), 9, 0, "standard", ())
        assert read(path, told).labels.tolist() == [1, 0, 1]
        bare = FeatureMap(1, Layout("clicked", (), ("site",)), 9, 0, "standard", ())
        assert read(path, bare, labels=(no, yes)).labels.tolist() == [1, 0, 1]
    table = pyarrow.table({"clicked": [2, 1, 2], "site": ["a", "b", "c"]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet", bare, labels=("1", "2")).labels.tolist() == [1, 0, 1]
    with pytest.raises(InputError, match=r"row 1: malformed row: expected a label of 0 or 1.*`labels` 1,2;"):
        read(tmp_path / "c.parquet", bare)
    path = write("c.csv", "clicked,site\nno,a\nmight be,b\n")
    with pytest.raises(
        InputError, match=r"line 2: .*found 'no'. Say .* no click first: `labels` 'might be,no'"
    ):
        read(path, bare)
    with pytest.raises(InputError, match=r"found 'no'. Say .* no click first with `labels` no,yes"):
        read(write("c.csv", "clicked,site\nno,a\nyes,b\n?,c\n"), bare)


def test_labels_are_told_as_a_pair_or_as_on_the_command_line() -> None:
    for given in (("no", "yes"), "no,yes"):
        assert reading_of({"labels": given}).labels == ("no", "yes")
    assert reading_of({"labels": "1,2", "skip_malformed": True}) == Reading(
        labels=("1", "2"), skip_malformed=True
    )
    for wrong in (("a", "a"), ("a",), "a", "a,b,c", "a,a"):
        with pytest.raises(UsageError, match="two that differ"):
            reading_of({"labels": wrong})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(("no", "yes"), [("False", "True"), ("false", "true"), ("0.0", "1.0"), ("-1", "+1")])
def test_usual_labels_need_not_be_told(write: Write, no: str, yes: str) -> None:
    bare = FeatureMap(1, Layout("clicked", (), ("site",)), 9, 0, "standard", ())
    assert read(write("c.csv", f"clicked,site\n{yes},a\n{no},b\n"), bare).labels.tolist() == [1, 0]


def test_missing_values_are_known_by_their_texts(write: Write) -> None:
    features = FeatureMap(1, Layout("y", ("age",), ("site",)), 1 << 16, 0, "standard", ())
    texts = ["", "NA", "N/A", "nan", "NaN", "null", "None", "\\N"]
    path = write("c.csv", "y,age,site\n" + "".join(f"1,{text},{text}\n" for text in texts) + "0,7,?\n")
    rows = read(path, features)
    assert np.isnan(rows.numeric[:, 0]).tolist() == [True] * len(texts) + [False]
    assert (rows.categories[:, 0] == ABSENT).tolist() == [True] * len(texts) + [False]
    told = FeatureMap(1, Layout("y", ("age",), ("site",), missing=("?",)), 1 << 16, 0, "standard", ())
    rows = read(write("c.csv", "y,age,site\n1,?,?\n0,7,NA\n"), told)
    assert np.isnan(rows.numeric[:, 0]).tolist() == [True, False]
    assert (rows.categories[:, 0] == ABSENT).tolist() == [True, False]


def test_rows_without_a_label_are_left_out_only_if_asked(write: Write, tmp_path: Path) -> None:
    features = FeatureMap(1, Layout("y", ("age",), ()), 9, 0, "standard", ())
    table = pyarrow.table({"y": pyarrow.array([1, None, 0, None], pyarrow.int32()), "age": [1, 2, 3, 4]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    for path in (write("c.csv", "y,age\n1,1\nNA,2\n0,3\n,4\n"), tmp_path / "c.parquet"):
        with pytest.raises(InputError, match=r"(line 3|row 2): malformed.*`drop_unlabelled`"):
            read(path, features)
        rows = read(path, features, drop_unlabelled=True)
        assert (rows.labels.tolist(), rows.numbers.tolist()) == ([1, 0], [0, 2])
        source = open_source(path, format="columns")
        chunks = read_columns(source, features, Reading(drop_unlabelled=True))
        assert sum(chunk.unlabelled for chunk in chunks) == 2
        assert len(read(path, features, labelled=False)) == 4


def test_categories_of_booleans_are_those_of_text(write: Write, tmp_path: Path) -> None:
    features = FeatureMap(1, Layout("y", (), ("on",)), 1 << 16, 0, "standard", ())
    table = pyarrow.table({"y": [True, False, True], "on": [True, False, None]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    assert same(
        read(tmp_path / "c.parquet", features), read(write("c.csv", "y,on\n1,True\n0,False\n1,\n"), features)
    )


def test_a_decimal_comma_is_known_where_something_else_separates(write: Write) -> None:
    features = FeatureMap(1, Layout("y", ("age",), (), ";"), 9, 0, "standard", ())
    rows = read(write("c.csv", "y;age\n1;2,5\n0;-3\n"), features)
    assert rows.numeric[:, 0].tolist() == [2.5, -3.0]


def test_rows_of_many_blocks_are_numbered_on(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlless.data.readers.text.BLOCK", 4096)
    body = "".join(f"p{n % 7},{n % 2},{n},{n / 8},s{n % 11},\n" for n in range(3000))
    rows = read(
        write("many.csv", TEXT.splitlines()[0] + "\n" + body.replace("p3,0,10,", "p3,0,oops,")), skip=True
    )
    assert rows.numbers.tolist() == [n for n in range(3000) if n != 10]  # as they are in the source
    assert rows.numeric[9:11, 0].tolist() == [9, 11]


def test_parquet_gives_the_same_rows_as_text(write: Write, tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "device": pyarrow.array(["phone", None, "tablet", "phone"]).dictionary_encode(),
            "clicked": pyarrow.array([True, False, False, True]),
            "age": pyarrow.array([31, None, 7, 31], pyarrow.int32()),
            "price": pyarrow.array([1.5, -2000, float("nan"), 1.5], pyarrow.float32()),
            "site": pyarrow.array(["news", "shop", "", "\u00fcber"], pyarrow.large_string()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    assert same(read(tmp_path / "c.parquet"), read(write("c.csv", TEXT)))
    numbers = FeatureMap(1, Layout("clicked", (), ("age",)), 1 << 16, 0, "standard", ())
    assert same(read(tmp_path / "c.parquet", numbers), read(write("c.csv", TEXT), numbers))
    bare = read(
        tmp_path / "c.parquet", FeatureMap(1, Layout("y", (), ("age",)), 9, 0, "standard", ()), labelled=False
    )
    assert bare.labels.tolist() == [0, 0, 0, 0]


def test_trouble_in_parquet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS", 2)
    good = {
        "clicked": [0, 1, 1],
        "age": [1.0, 2.0, 3.0],
        "price": [1, 2, 3],
        "site": ["a", "b", "c"],
        "device": [1, 2, 3],
    }

    def write(**changes: object) -> Path:
        pyarrow.parquet.write_table(pyarrow.table({**good, **changes}), tmp_path / "c.parquet")
        return tmp_path / "c.parquet"

    for changes, says in (
        ({"clicked": [0, 1, 5]}, "row 3.*a label of 0 or 1.*found '5'"),
        ({"clicked": [0, None, 1]}, "row 2.*a label"),
        ({"age": [1.0, 2.0, float("inf")]}, "row 3.*in column age"),
        ({"site": ["a", "b", "c" * 5000]}, "row 3.*at most 4096 bytes"),
    ):
        path = write(**changes)
        with pytest.raises(InputError, match=says):
            read(path)
        assert len(read(path, skip=True)) == 2
    for changes, says in (
        ({"site": [1.0, 2.0, 3.0]}, "column site: wrong type: expected a column of text, whole numbers or"),
        ({"age": [[1], [2], [3]]}, "column age: wrong type: expected a column of numbers or text"),
    ):
        with pytest.raises(InputError, match=says):
            read(write(**changes))


def test_a_truncated_gzip_file_is_an_error(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT.encode() * 100)
    (tmp_path / "c.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="truncated"):
        read(tmp_path / "c.csv.gz", skip=True)
