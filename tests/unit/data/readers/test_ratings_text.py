"""Ratings as text: the three layouts, the errors, and that fast and slow parsing agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.readers import lines as lines_module
from mlless.data.readers import open_source, read_ratings
from mlless.data.readers import text as text_module
from mlless.data.readers.columns import Columns
from mlless.data.readers.numbers import Irregular, Malformed
from mlless.data.readers.ratings_text import Rating, RatingsLines
from mlless.data.rows import Chunk, RatingsRows
from mlless.errors import InputError

Write = Callable[[str, str | bytes], Path]

ROWS = [(1, 1193, 5.0), (1, 661, 3.5), (9223372036854775807, 0, 0.5), (7, 9007199254740993, -1.25)]


def joined(chunks: Sequence[Chunk[RatingsRows]]) -> tuple[list[Rating], list[int], int]:
    rows = RatingsRows.join([chunk.rows for chunk in chunks])
    ratings = [None] * len(rows) if rows.ratings is None else rows.ratings.tolist()
    lines = np.concatenate([chunk.lines for chunk in chunks]).tolist()
    skipped = sum(chunk.skipped for chunk in chunks)
    return list(zip(rows.users.tolist(), rows.items.tolist(), ratings, strict=True)), lines, skipped


def read(path: Path, *, skip: bool = False, optional: bool = False) -> tuple[list[Rating], list[int], int]:
    source = open_source(path, format="ratings")
    return joined(list(read_ratings(source, skip_malformed=skip, rating_optional=optional)))


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "header", "line"),
    [
        ("r.csv", "userId,movieId,rating,timestamp\n", "{},{},{},9\n"),
        ("r.csv", "\ufeffuserId,movieId,rating\r\n", "{},{},{}\r\n"),
        ("r.csv", "Rating,x,ITEM_ID,User\n", "{2},text,{1},{0}\n"),
        ("r.csv", '"user","item","rating","title"\n', '{},{},{},"a, b"\n'),
        ("r.csv", '"user","item","rating"\n', '"{}","{}", {} \n'),
        ("r.dat", "", "{}::{}::{}::978300760\n"),
        ("u.data", "", "{}\t{}\t{}\t881250949\n"),
        ("r.tsv", "user\titem\trating\n", "{}\t{}\t{}\n"),
    ],
)
def test_reads_every_layout(write: Write, name: str, header: str, line: str, packed: str) -> None:
    path = write(name + packed, header + "".join(line.format(*row) for row in ROWS))
    rows, lines, skipped = read(path)
    assert rows == ROWS
    assert lines == [n + bool(header) for n in range(1, len(ROWS) + 1)]
    assert skipped == 0


def test_the_last_line_may_lack_its_end_and_lines_may_be_blank(write: Write) -> None:
    rows, lines, _ = read(write("u.data", "1\t2\t3\n\n4\t5\t1e0"))
    assert (rows, lines) == ([(1, 2, 3.0), (4, 5, 1.0)], [1, 3])


@pytest.mark.parametrize("text", ["user,item\n1,2\n3,4\n", "1\t2\n3\t4\n"])
def test_ratings_may_be_optional(write: Write, text: str) -> None:
    path = write("r.csv", text)
    assert read(path, optional=True)[0] == [(1, 2, None), (3, 4, None)]
    with pytest.raises(InputError, match="no rating column"):
        read(path)


BAD_LINES = [
    ("1,2,nan", "a rating that is a finite number, found 'nan'"),
    ("1,2,inf", "a rating that is a finite number, found 'inf'"),
    ("1,2,1e39", "a rating that is a finite number, found '1e39'"),
    ("1,2,good", "a rating that is a finite number, found 'good'"),
    ("1,2,", "a rating that is a finite number, found ''"),
    ("-1,2,3", "a user id that is a whole number from 0 to 2^63-1, found '-1'"),
    (
        "1,9223372036854775808,3",
        "an item id that is a whole number from 0 to 2^63-1, found '9223372036854775808'",
    ),
    ("1.0,2,3", "a user id that is a whole number from 0 to 2^63-1, found '1.0'"),
    ("1,2", "3 columns separated by ',', found '1,2'"),
    ("1,2,3,5", "3 columns separated by ',', found '1,2,3,5'"),
    ("1;2;3", "3 columns separated by ',', found '1;2;3'"),
    ('1,"2,3', "columns of CSV"),
    (b"1,\xff\xfe,3", "found '\\xff\\xfe'"),
    (b"1,2\x00,3", "an item id"),
    (bytes(range(1, 9)), "3 columns separated by ','"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_malformed_line_is_named_or_skipped(write: Write, line: str | bytes, message: str) -> None:
    bad = line.encode() if isinstance(line, str) else line
    path = write("r.csv", b"user,item,rating\n1,2,3\n" + bad + b"\n4,5,1\n" + bad + b"\n")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line 3: malformed line: expected ")
    assert message in str(caught.value).replace("\\\\", "\\")
    assert "--skip-malformed" in str(caught.value)
    assert read(path, skip=True) == ([(1, 2, 3.0), (4, 5, 1.0)], [2, 4], 2)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.csv", "1,2,3\n", "line 1: no header: expected a header line that names user"),
        ("r.csv", "who,movieId,rating\n1,2,3\n", "line 1: no header"),
        ("r.csv", "userId,movieId,score\n1,2,3\n", "line 1: no rating column"),
        ("r.csv", 'userId,"movieId\n1,2,3\n', "line 1: no header"),
        ("r.csv", "userId;movieId;rating\n1;2;3\n", "no separator in the first line"),
        ("u.data", "1 2 3 4\n", "no separator in the first line"),
        ("u.data", "1\n", "no separator in the first line"),
        ("u.data", "a\tb\tc\n1\t2\t3\n", "line 1: malformed line"),
    ],
)
def test_a_wrong_first_line_is_an_error(write: Write, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(write(name, text))


pieces = st.sampled_from(
    ["1", "007", "3.5", "-1", "1e3", "nan", "", " 4", "9" * 19, "x", '"5"', "::", ":", "\t", ","]
)
texts = st.lists(st.one_of(st.just("12,34,4.5"), st.lists(pieces, max_size=5).map(",".join)), max_size=6)


@given(
    texts, st.sampled_from([Columns(0, 1, 2, 3), Columns(2, 0, 1, 3), Columns(0, 1, None, 2)]), st.booleans()
)
def test_many_lines_at_once_are_those_read_one_by_one(
    texts: list[str], columns: Columns, double: bool
) -> None:
    text = "".join(f"{line}\n" for line in texts)
    form = RatingsLines(b"::" if double else b",", columns)
    text = text.replace(",", "::") if double else text
    try:
        rows, lines = form.many(text.encode())
    except Irregular:
        return
    assert lines.tolist() == list(range(len(texts)))
    read_singly = [form.one(line.encode()) for line in text.split("\n")[:-1]]
    slow = form.gather([row for row in read_singly if row is not None])
    for fast_column, slow_column in zip(rows.columns(), slow.columns(), strict=True):
        assert fast_column.dtype == slow_column.dtype
        assert fast_column.tobytes() == slow_column.tobytes()


@given(
    lines=st.lists(st.sampled_from(["1,2,3.5", "44,5,1", "", "oops", '"6",7,2', "8,9,nan"]), max_size=30),
    block=st.integers(1, 60),
    small=st.integers(1, 60),
)
def test_blocks_and_halves_lose_no_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], block: int, small: int
) -> None:
    path = tmp_path_factory.mktemp("halves") / "r.csv"
    path.write_text("user,item,rating\n" + "".join(f"{line}\n" for line in lines))
    form, expected, skipped = RatingsLines(b",", Columns(0, 1, 2, 3)), [], 0
    for number, line in enumerate(lines, 2):
        try:
            row = form.one(line.encode())
        except Malformed:
            skipped += 1
            continue
        expected += [(number, row)] if row else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "BLOCK", block)
        patch.setattr(lines_module, "SMALL", small)
        rows, numbers, left_out = read(path, skip=True)
    assert (list(zip(numbers, rows, strict=True)), left_out) == (expected, skipped)


def test_progress_is_that_of_the_file_on_disk(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "BLOCK", 2000)
    monkeypatch.setattr("mlless.data.readers.parts.PIECE", 500)
    source = open_source(write("u.data.gz", "".join(f"{n}\t{n * n % 997}\t3\n" for n in range(5000))))
    done = [chunk.done for chunk in read_ratings(source)]
    assert done == sorted(done)
    assert len(set(done)) > 1
    assert source.progress(done[-1]) == 1.0
