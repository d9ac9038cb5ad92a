"""Tables of clicks: the same rows from text and Parquet, and every kind of trouble named."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.features import ABSENT, CRITEO, FeatureMap, Layout
from mlless.data.hashing import LONGEST_TOKEN
from mlless.data.readers import lines as lines_module
from mlless.data.readers import open_source, read_columns, read_ratings
from mlless.data.readers.columns_text import ColumnLines
from mlless.data.readers.numbers import Irregular
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


def read(path: Path, features: FeatureMap = MAP, *, skip: bool = False, optional: bool = False) -> ColumnRows:
    source = open_source(path, format=features.format)
    chunks = list(read_columns(source, features, skip_malformed=skip, label_optional=optional))
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
    bare = read(write("test.tsv", f"{line}\n{line}\n"), features, optional=True)
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
        ("phone,1,nan,1.5,news,x", "a finite number or nothing in column age, found 'nan'"),
        ("phone,1,3,1e99,news,x", "in column price"),
        ("phone,1,31,1.5,news", "6 columns separated by ',', found '5: "),
        ('"phone,1,31,1.5,news,x', "columns of CSV"),
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
    assert rows.numbers.tolist() == [0, 1, 2, 3, 4]


def test_missing_and_doubled_columns_are_named(write: Write) -> None:
    with pytest.raises(InputError, match=r"columns are missing.*price"):
        read(write("a.csv", "clicked,age,site,device\n1,2,a,b\n"))
    with pytest.raises(InputError, match=r"columns of one name.*See to age"):
        read(write("a.csv", "clicked,age,age,price,site,device\n1,2,2,2,a,b\n"))
    with pytest.raises(InputError, match="columns are missing"):
        read(write("a.csv", "age,price,site,device\n1,2,a,b\n"))
    assert len(read(write("a.csv", "age,price,site,device\n1,2,a,b\n"), optional=True)) == 1
    with pytest.raises(InputError, match="no header"):
        read(write("a.csv", '"age,price\n1,2\n'))
    with pytest.raises(UsageError, match="not a table of clicks"):
        read_columns(open_source(write("u.data", "1\t2\t3\n")), MAP)
    with pytest.raises(UsageError, match="not a source of ratings"):
        read_ratings(open_source(write("a.csv", TEXT), format="columns"))


field = st.one_of(
    st.just(""),
    st.integers(-1000, 10**7).map(str),
    st.floats(-1e30, 1e30).map(repr),
    st.just(" 7"),
    st.just("x"),
)
word = st.text(st.characters(codec="utf-8", exclude_characters=',\n\r"'), max_size=20)


@given(
    st.lists(st.tuples(st.sampled_from(["0", "1", "-1", "1.0", "2"]), field, field, word, word), max_size=6)
)
def test_many_lines_at_once_are_read_as_one_at_a_time(rows: list[tuple[str, ...]]) -> None:
    lines = ColumnLines(["clicked", "age", "price", "site", "device"], MAP)
    text = [",".join(row).encode() for row in rows]
    try:
        many, numbers = lines.many(b"".join(line + b"\n" for line in text))
    except Irregular:
        return
    single = [lines.one(line) for line in text]
    assert same(many, lines.gather([row for row in single if row is not None]))
    assert numbers.tolist() == list(range(len(rows)))


def test_rows_of_many_blocks_are_numbered_on(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlless.data.readers.text.BLOCK", 4096)
    monkeypatch.setattr(lines_module, "SMALL", 512)
    body = "".join(f"p{n % 7},{n % 2},{n},{n / 8},s{n % 11},\n" for n in range(3000))
    rows = read(
        write("many.csv", TEXT.splitlines()[0] + "\n" + body.replace("p3,0,10,", "p3,0,oops,")), skip=True
    )
    assert rows.numbers.tolist() == list(range(2999))
    assert rows.numeric[9:11, 0].tolist() == [9, 11]


def test_parquet_gives_the_same_rows_as_text(write: Write, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
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
        tmp_path / "c.parquet", FeatureMap(1, Layout("y", (), ("age",)), 9, 0, "standard", ()), optional=True
    )
    assert bare.labels.tolist() == [0, 0, 0, 0]


def test_trouble_in_parquet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    monkeypatch.setattr("mlless.data.readers.columns_parquet.ROWS", 2)
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
        ({"site": [1.0, 2.0, 3.0]}, "column site: wrong type: expected a column of text or whole numbers"),
        ({"age": ["1", "2", "3"]}, "column age: wrong type: expected a numeric column"),
    ):
        with pytest.raises(InputError, match=says):
            read(write(**changes))


def test_a_truncated_gzip_file_is_an_error(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT.encode() * 100)
    (tmp_path / "c.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="truncated"):
        read(tmp_path / "c.csv.gz", skip=True)
