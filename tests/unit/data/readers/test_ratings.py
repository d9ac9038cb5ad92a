"""Ratings from tables: every layout of text, Parquet, ids of any text, errors, and what may be left out."""

from __future__ import annotations

import csv
import decimal
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.readers import Reading, open_source, parquet, read_ratings
from mlless.data.readers import delimited as delimited_module
from mlless.data.readers import parts as parts_module
from mlless.data.readers import text as text_module
from mlless.errors import InputError, UsageError

Write = Callable[[str, str | bytes], Path]
Rating = tuple[Any, Any, float | None]

ROWS: list[Rating] = [
    (1, 1193, 5.0),
    (1, 661, 3.5),
    (9223372036854775807, 0, 0.5),
    (7, 9007199254740993, 1.25),
]


def read(path: Path, *, rated: bool = True, **options: Any) -> tuple[list[Rating], list[int], int]:
    """Return the ratings in a file, where they are, and how many rows were left out."""
    rows, lines, skipped = [], [], 0
    for chunk in read_ratings(open_source(path, format="ratings"), Reading(**options), rated=rated):
        found = chunk.rows
        ratings = [None] * len(found) if found.ratings is None else found.ratings.tolist()
        rows += list(zip(found.users.tolist(), found.items.tolist(), ratings, strict=True))
        lines += chunk.lines.tolist()
        skipped += chunk.skipped + chunk.unlabelled
    return rows, lines, skipped


def write_parquet(path: Path, **columns: object) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "header", "line"),
    [
        ("r.csv", "userId,movieId,rating,timestamp\n", "{},{},{},9\n"),
        ("r.csv", "\ufeffuserId,movieId,rating\r\n", "{},{},{}\r\n"),
        ("r.csv", "Rating,x,ITEM_ID,User\n", "{2},text,{1},{0}\n"),
        ("r.csv", '"user","item","rating","title"\n', '{},{},{},"a, b"\n'),
        ("r.csv", '"user","item","rating"\n', '"{}","{}", {} \n'),
        ("r.csv", "uid,asin,Stars,disk\n", '{},{},{},5" disk\n'),
        ("r.csv", "User-ID;ISBN;Book-Rating\n", "{};{};{}\n"),
        ("r.csv", "reviewerID|product_id|overall\n", "{}|{}|{}\n"),
        ("r.csv", "# exported\n# today\nuserId,movieId,rating\n", "{},{},{}\n"),
        ("r.csv", "", "{},{},{},978300760\n"),
        ("r.csv", "", "{};{};{}\n"),
        ("r.dat", "", "{}::{}::{}::978300760\n"),
        ("u.data", "", "{}\t{}\t{}\t881250949\n"),
        ("u.data", "", " {}\t {}\t\t{}\n"),
        ("u.data", "", "{} {}  {} 881250949\n"),
        ("r.tsv", "user\titem\trating\n", "{}\t{}\t{}\n"),
    ],
)
def test_reads_every_layout(write: Write, name: str, header: str, line: str, packed: str) -> None:
    path = write(name + packed, header + "".join(line.format(*row) for row in ROWS))
    rows, lines, skipped = read(path)
    assert rows == ROWS
    assert lines == [n + header.count("\n") for n in range(1, len(ROWS) + 1)]
    assert skipped == 0


def test_blank_lines_comments_and_an_open_end_are_no_rows(write: Write) -> None:
    rows, lines, skipped = read(write("u.data", "1\t2\t3\n\n   \n4\t5\t1e0\n# the end\n6\t7\t+2"))
    assert rows == [(1, 2, 3.0), (4, 5, 1.0), (6, 7, 2.0)]
    assert (lines, skipped) == ([1, 4, 6], 0)


def test_a_decimal_comma_is_known_where_something_else_separates(write: Write) -> None:
    assert read(write("r.csv", "user;item;rating\n1;2;3,5\n1;3;4\n"))[0] == [(1, 2, 3.5), (1, 3, 4.0)]


def test_quotes_may_hold_separators_quotes_and_line_ends(write: Write) -> None:
    text = '"user","item","rating","review"\n"1","2","3","Good.\nSaw ""it"", twice"\n'
    text += '4,5,1,short\n6,7,oops,"\n"\n'
    with pytest.raises(InputError, match=r"line 5: malformed line.*found 'oops'"):
        read(write("r.csv", text))
    rows, lines, skipped = read(write("r.csv", text), skip_malformed=True)
    assert (rows, lines, skipped) == ([(1, 2, 3.0), (4, 5, 1.0)], [2, 4], 1)


def test_a_quote_that_is_not_closed_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'user,item,rating\n1,2,3\n4,"5,1\n' + "6,7,2\n" * 1000
    with pytest.raises(InputError, match="line 3: a quote that is not closed"):
        read(write("r.csv", text))
    monkeypatch.setattr(text_module, "BLOCK", 100)
    monkeypatch.setattr(delimited_module, "LONGEST_ROW", 1000)
    with pytest.raises(InputError, match="line 3: a quote that is not closed"):
        read(write("r.csv", text), skip_malformed=True)


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        (["1", "12.0", "0"], [1, 12, 0]),
        (["1", "u-17", " 5 "], ["1", "u-17", "5"]),
        (["007", "7", "12.0"], ["007", "7", "12"]),
        (["18446744073709551615", "1"], ["18446744073709551615", "1"]),
        (["9223372036854775808"], ["9223372036854775808"]),
        (["-1", "+1", "0x10", "1e3", "nan"], ["-1", "+1", "0x10", "1e3", "nan"]),
        (["J\u00f3sef", "\u732b"], ["J\u00f3sef", "\u732b"]),
    ],
)
def test_ids_are_kept_whatever_they_are(
    write: Write, tmp_path: Path, texts: list[str], ids: list[Any]
) -> None:
    rows = "".join(f"{text},{n},1\n" for n, text in enumerate(texts))
    assert [user for user, *_ in read(write("r.csv", "user,item,rating\n" + rows))[0]] == ids
    numbers = list(range(len(texts)))
    for column in (
        pyarrow.array(texts),
        pyarrow.array(texts, pyarrow.large_string()),
        pyarrow.array(texts).dictionary_encode(),
    ):
        path = write_parquet(tmp_path / "r.parquet", user=column, item=numbers, rating=numbers)
        assert [user for user, *_ in read(path)[0]] == ids


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,inf", "a rating that is a finite number, found 'inf'"),
        ("1,2,1e39", "a rating that is a finite number, found '1e39'"),
        ("1,2,0x1", "a rating that is a finite number, found '0x1'"),
        ("1,2,good", "a rating that is a finite number, found 'good'"),
        (",2,3", "a user id: a whole number or text, found ''"),
        ("1, ,3", "an item id: a whole number or text, found ' '"),
        ("1,2", "3 columns separated by ',', found '2: 1,2'"),
        ("1,2,3,5", "3 columns separated by ',', found '4: 1,2,3,5'"),
        (b"1,\xff\xfe,3", "an item id in UTF-8, found '\\\\xff\\\\xfe'. The file is not UTF-8"),
        (b"1,\xff", "3 columns separated by ',', found '2: 1,\\\\xff'"),
        (b"1,2\x00,3", "an item id"),
        (bytes(range(1, 9)), "3 columns separated by ','"),
    ],
)
def test_a_malformed_line_is_named_or_skipped(write: Write, line: str | bytes, message: str) -> None:
    bad = line.encode() if isinstance(line, str) else line
    path = write("r.csv", b"user,item,rating\n1,2,3\n" + bad + b"\n4,5,1\n" + bad + b"\n")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line 3: malformed line: expected ")
    assert message in str(caught.value)
    assert "`skip_malformed`" in str(caught.value)
    assert read(path, skip_malformed=True) == ([(1, 2, 3.0), (4, 5, 1.0)], [2, 4], 2)


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "NA", "\\N", "null"])
def test_rows_without_a_rating_are_left_out_only_if_asked(write: Write, missing: str) -> None:
    path = write("r.csv", f"user,item,rating\n1,2,3\n4,5,{missing}\n")
    with pytest.raises(InputError, match=r"line 3: malformed line.*`drop_unlabelled`"):
        read(path)
    assert read(path, drop_unlabelled=True) == ([(1, 2, 3.0)], [2], 1)
    assert read(path, rated=False)[0] == [(1, 2, None), (4, 5, None)]


@pytest.mark.parametrize("text", ["user,item\n1,2\n3,4\n", "1\t2\n3\t4\n", "user,item,rating\n1,2,?\n3,4,\n"])
def test_pairs_to_predict_need_no_ratings(write: Write, text: str) -> None:
    assert read(write("r.csv", text), rated=False)[0] == [(1, 2, None), (3, 4, None)]


PLAYS = "gameId,userId,plays\n5,10,121\n6,10,508\n"


def test_a_column_of_an_unknown_name_is_asked_for(write: Write, tmp_path: Path) -> None:
    path = write("r.csv", PLAYS)
    with pytest.raises(InputError) as caught:
        read(path)
    assert "usual names, such as userId" in str(caught.value)
    assert "found gameId, userId, plays. Say which it is: `rating_column` plays" in str(caught.value)
    rows = [(10, 5, 121.0), (10, 6, 508.0)]
    assert read(path, rating_column="plays")[0] == rows
    assert read(path, rating_column=3)[0] == rows
    assert read(path, rating_column="3", user_column="USER_ID")[0] == rows
    path = write("r.csv", "a,b,c\n10,5,121\n10,6,508\n")
    with pytest.raises(InputError, match="`user_column` NAME `item_column` NAME `rating_column` NAME"):
        read(path)
    assert read(path, user_column="a", item_column="b", rating_column="c")[0] == rows
    with pytest.raises(UsageError, match=r"no such column as `user_column` x.*found a, b, c"):
        read(path, user_column="x", item_column="b", rating_column="c")
    with pytest.raises(UsageError, match="one column for two purposes"):
        read(path, user_column="a", item_column="a", rating_column="c")


def test_columns_without_a_header_go_by_their_numbers(write: Write) -> None:
    path = write("r.dat", "5::x::1::A1\n4::y::1::A2\n")
    told = {"user_column": "4", "item_column": "2", "rating_column": "1"}
    assert read(path, **told)[0] == [("A1", "x", 5.0), ("A2", "y", 4.0)]
    path = write("r.csv", "who,what,3\na,b,4\n")
    assert read(path)[0] == [("who", "what", 3.0), ("a", "b", 4.0)]
    path = write("r.csv", "who,what\na,b\n")
    assert read(path, rated=False, header=False)[0] == [("who", "what", None), ("a", "b", None)]
    path = write("r.txt", "1^2^3\n4^5^6\n")
    with pytest.raises(InputError, match="`separator`"):
        read(path)
    assert read(path, separator="^")[0] == [(1, 2, 3.0), (4, 5, 6.0)]
    with pytest.raises(UsageError, match="no such separator"):
        read(path, separator="ab")


def test_columns_of_one_name_are_named(write: Write, tmp_path: Path) -> None:
    path = write("r.csv", "user,item,rating,user\n1,2,3,4\n")
    with pytest.raises(InputError, match="columns of one name: found user more than once"):
        read(path)
    assert read(path, user_column=4, item_column=2, rating_column=3)[0] == [(4, 2, 3.0)]
    table = pyarrow.table([[1], [1], [1], [1]], names=["user", "item", "rating", "user"])
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(InputError, match="columns of one name: found user"):
        read(tmp_path / "r.parquet")


def lines_of(rows: list[tuple[str, str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


field = st.text(st.sampled_from('ab",\n #'), min_size=1, max_size=6)


@given(
    rows=st.lists(st.tuples(field.filter(str.strip), st.integers(0, 99).map(str), field), max_size=30),
    block=st.integers(1, 80),
)
def test_blocks_are_cut_between_rows_wherever_quotes_hold_line_ends(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], block: int
) -> None:
    rows = [(user.replace("\n", "x"), rating, note) for user, rating, note in rows]
    path = tmp_path_factory.mktemp("blocks") / "r.csv"
    path.write_text("user,rating,note,item\n" + lines_of([(*row, "7") for row in rows]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "BLOCK", block)
        if not rows:
            assert read(path)[0] == []
            return
        found, lines, skipped = read(path)
    assert found == [(user.strip(), 7, float(rating)) for user, rating, _ in rows]
    assert lines == [2 + sum(1 + note.count("\n") for *_, note in rows[:n]) for n in range(len(rows))]
    assert skipped == 0


def test_progress_is_that_of_the_file_on_disk(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "BLOCK", 2000)
    monkeypatch.setattr(parts_module, "PIECE", 1000)
    source = open_source(write("u.data.gz", "".join(f"{n}\t{n * n % 997}\t3\n" for n in range(5000))))
    done = [chunk.done for chunk in read_ratings(source)]
    assert done == sorted(done)
    assert len(set(done)) > 1
    assert source.progress(done[-1]) == 1.0


@pytest.mark.parametrize("ids", ["int8", "int64", "uint16", "uint64", "float32", "float64", "decimal"])
@pytest.mark.parametrize("ratings", ["int8", "float16", "float32", "float64", "decimal", "string"])
def test_parquet_of_every_type(tmp_path: Path, ids: str, ratings: str) -> None:
    def column(values: list[int], kind: str) -> pyarrow.Array:
        if kind == "decimal":
            return pyarrow.array([decimal.Decimal(n) for n in values], pyarrow.decimal128(12, 2))
        if kind == "string":
            return pyarrow.array(list(map(str, values)))
        return pyarrow.array(np.array(values, kind))

    path = write_parquet(
        tmp_path / "r.parquet",
        movieId=column([7, 8, 7], ids),
        title=["a", "b", None],
        rating=column([5, 3, 1], ratings),
        userId=column([1, 1, 100], ids),
    )
    assert read(path) == ([(1, 7, 5.0), (1, 8, 3.0), (100, 7, 1.0)], [1, 2, 3], 0)


def test_unsigned_ids_beyond_63_bits_are_kept(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "r.parquet",
        user=pyarrow.array([1, 2**64 - 1], pyarrow.uint64()),
        item=[2**63 - 1, 3],
        rating=[3, 4],
    )
    assert read(path)[0] == [("1", 2**63 - 1, 3.0), (str(2**64 - 1), 3, 4.0)]


def test_text_in_latin_1_is_named_as_such(write: Write) -> None:
    rows = "".join(f"kunde-{n} {'ü' * (n % 7 == 6)},{n},3\n" for n in range(90))
    path = write("r.csv", ("user,item,rating\n" + rows).encode("latin1"))
    with pytest.raises(InputError) as caught:
        read(path)
    said = (
        "line 8: malformed line: expected a user id in UTF-8, found 'kunde-6 \\\\xfc'. The file is not UTF-8"
    )
    assert said in str(caught.value)
    assert "`iconv -f latin1 -t utf-8 FILE > NEW`" in str(caught.value)
    path.write_text(path.read_text("latin1"), "utf-8")
    assert read(path)[0][6] == ("kunde-6 ü", 6, 3.0)


def test_bytes_that_are_text_are_ids(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "r.parquet", user=[b"a", b"12"], item=[b"7", b"8"], rating=[3, 4])
    assert read(path)[0] == [("a", 7, 3.0), ("12", 8, 4.0)]
    path = write_parquet(tmp_path / "r.parquet", user=[b"a", b"\xff", b"b"], item=[1, 2, 3], rating=[3, 4, 5])
    with pytest.raises(InputError, match="row 2: malformed row: expected a user id in UTF-8") as caught:
        read(path)
    assert "iconv" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [1, -1, 3], "a user id: a whole number or text, found '-1'"),
        ("item", [1, None, 3], "an item id: a whole number or text, found 'None'"),
        ("item", [1.0, 2.5, 3.0], "an item id: a whole number or text, found '2.5'"),
        ("item", ["1", "", "3"], "an item id: a whole number or text, found ''"),
        ("rating", [1.0, None, 3.0], "a rating that is a finite number, found 'None'"),
        ("rating", [1.0, float("nan"), 3.0], "a rating that is a finite number, found 'nan'"),
        ("rating", [1.0, 1e300, 3.0], "a rating that is a finite number, found '1e+300'"),
        ("rating", [1, 2**53 + 1, 3], "a rating that is a finite number, found '9007199254740993'"),
    ],
)
def test_a_malformed_row_of_parquet_is_named_or_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, values: object, message: str
) -> None:
    monkeypatch.setattr(parquet, "ROWS", 1)
    columns = {"user": [1, 2, 3], "item": [1, 2, 3], "rating": [1, 2, 3], column: values}
    path = write_parquet(tmp_path / "r.parquet", **columns)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, row 2: malformed row: expected ")
    assert message in str(caught.value)
    assert read(path, skip_malformed=True)[1:] == ([1, 3], 1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [[1]], "item": [1], "rating": [1]}, "column user: wrong type"),
        (
            {"user": [1], "item": [1], "rating": [True]},
            "column rating: wrong type",
        ),
        (
            {"who": [1], "item": [1], "rating": [1]},
            "Say which it is: `user_column` who",
        ),
        ({"user": [1], "item": [1]}, "no column is known as the rating"),
    ],
)
def test_columns_of_other_names_or_types_are_refused(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(write_parquet(tmp_path / "r.parquet", **columns))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data[:9], lambda data: b"1,2,3\n" * 9]
)
def test_a_damaged_file_is_an_error(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write_parquet(tmp_path / "r.parquet", user=[1], item=[2], rating=[3])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="a damaged or truncated Parquet file"):
        read(path)


def test_damaged_pages_are_an_error(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "r.parquet", user=list(range(9999)), item=[2] * 9999, rating=[3] * 9999)
    data = bytearray(path.read_bytes())
    data[4:4000] = bytes(3996)
    path.write_bytes(data)
    with pytest.raises(InputError, match="a damaged or truncated Parquet file"):
        read(path)
