"""Clicks as LIBSVM text: what is taken, what is refused, and that fast and slow parsing agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.readers import Reading, clicks_text, losses, open_source, read_clicks
from mlless.data.readers import text as text_module
from mlless.data.readers.clicks_text import ClicksLines
from mlless.data.readers.numbers import Irregular, Malformed
from mlless.data.rows import ClicksRows
from mlless.errors import InputError

Write = Callable[[str, str | bytes], Path]
Row = tuple[int, dict[int, float]]


def unpacked(rows: ClicksRows) -> list[Row]:
    return [
        (int(label), dict(zip(rows.indices[a:b].tolist(), rows.values[a:b].tolist(), strict=True)))
        for label, a, b in zip(rows.labels, rows.starts[:-1], rows.starts[1:], strict=True)
    ]


def read(
    path: Path,
    *,
    skip: bool = False,
    labels: tuple[str, str] | None = None,
    labelled: bool = True,
    lowest: int = 0,
    highest: int | None = None,
) -> tuple[list[Row], list[int], int]:
    source = open_source(path, format="libsvm")
    reading = Reading(skip_malformed=skip, labels=labels)
    chunks = list(read_clicks(source, reading, labelled=labelled, lowest=lowest, highest=highest))
    rows = ClicksRows.join([chunk.rows for chunk in chunks])
    if not any(chunk.skipped for chunk in chunks):
        assert rows.numbers.tolist() == list(range(len(rows)))
    lines = np.concatenate([chunk.lines for chunk in chunks]).tolist()
    return unpacked(rows), lines, sum(chunk.skipped for chunk in chunks)


@pytest.mark.parametrize("name", ["a.svm", "a.svm.gz"])
def test_reads_what_is_usual(write: Write, name: str) -> None:
    text = "# made by hand\n-1 3:1 11:0.5 \n\n+1\t7:-2e-1\t5:1 # click\r\n-1\n1.0 2147483647:3"
    rows, lines, skipped = read(write(name, text))
    assert rows == [
        (0, {3: 1.0, 11: 0.5}),
        (1, {7: float(np.float32(-0.2)), 5: 1.0}),
        (0, {}),
        (1, {2147483647: 3.0}),
    ]
    assert (lines, skipped) == ([2, 4, 5, 6], 0)


def test_labels_may_be_0_and_1(write: Write) -> None:
    assert read(write("a", "0 1:1\n1 1:1\n"))[0] == [(0, {1: 1.0}), (1, {1: 1.0})]


BAD_LINES = [
    ("2 1:1", "a label of 0 or 1, or of -1 or 1, found '2'"),
    ("click 1:1", "a label of 0 or 1, or of -1 or 1, found 'click'"),
    ("1:1 2:1", "a label of 0 or 1, or of -1 or 1, found '1:1'"),
    ("1,2,3", "one label in a row, found '1,2,3'. These are multi-label data"),
    ("-1 1:1", "a label of 0 or 1, as in the lines before, found '-1'"),
    ("1 5", "features as index:value, found '5'"),
    ("1 5:1:2", "features as index:value, found '5:1:2'"),
    ("1 -5:1", "a feature index that is a whole number from 0 to 2147483647, found '-5'"),
    ("1 2147483648:1", "a feature index that is a whole number from 0 to 2147483647"),
    ("1 1.5:1", "a feature index that is a whole number"),
    ("1 :1", "a feature index that is a whole number"),
    ("1 5:", "a value that is a finite number, found ''"),
    ("1 5:nan", "a value that is a finite number, found 'nan'"),
    ("1 5:-inf", "a value that is a finite number, found '-inf'"),
    ("1 5:1e39", "a value that is a finite number, found '1e39'"),
    ("1 5:1 6:1 5:2", "each feature once in a row, found '5 twice'"),
    (b"1 \xff:1", "a feature index that is a whole number"),
    (b"\x01\x02", "a label of 0 or 1"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_malformed_line_is_named_or_skipped(write: Write, line: str | bytes, message: str) -> None:
    bad = line.encode() if isinstance(line, str) else line
    path = write("a", b"0 1:1\n1 2:1\n" + bad + b"\n0 3:1\n" + bad)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line 3: malformed line: expected ")
    assert message in str(caught.value)
    assert "`skip_malformed`" in str(caught.value)
    assert read(path, skip=True) == ([(0, {1: 1.0}), (1, {2: 1.0}), (0, {3: 1.0})], [1, 2, 4], 2)


def test_an_index_beyond_the_bounds_is_malformed(write: Write) -> None:
    path = write("a", "0 1:1\n1 9:1\n0 0:1\n1 2:1\n")
    with pytest.raises(InputError, match=r"line 2.*a feature index from 1 to 8, found '9'"):
        read(path, lowest=1, highest=8)
    assert read(path, skip=True, lowest=1, highest=8) == ([(0, {1: 1.0}), (1, {2: 1.0})], [1, 4], 2)


def test_the_label_of_a_skipped_line_decides_nothing(write: Write) -> None:
    assert read(write("a", "0 x\n-1 1:1\n1 1:1\n"), skip=True)[0] == [(0, {1: 1.0}), (1, {1: 1.0})]


def test_queries_comments_and_a_byte_order_mark_are_passed_over(write: Write) -> None:
    text = "\ufeff-1 qid:7 3:1 # docid = GX0:1\n1\tqid:8\t4:1\n1 4:1 # qid:9\n-1 qid:1\n"
    rows = [(0, {3: 1.0}), (1, {4: 1.0}), (1, {4: 1.0}), (0, {})]
    assert read(write("a", text))[0] == rows
    bad = write("a", text + "1 qid:2 x\n")  # so read line by line
    assert read(bad, skip=True)[0] == rows


@pytest.mark.parametrize(
    ("no", "yes", "told"),
    [
        ("false", "true", False),
        ("False", "True", False),
        ("no", "yes", True),
        ("1", "2", True),
        ("2", "1", True),
    ],
)
@pytest.mark.parametrize("bad", ["", "1 x\n"])
def test_labels_may_be_any_two(write: Write, no: str, yes: str, told: bool, bad: str) -> None:
    path = write("a", f"{no} 1:1\n{yes} 2:1\n{no}\n{bad}")
    rows = read(path, labels=(no, yes) if told else None, skip=bool(bad))[0]
    assert rows == [(0, {1: 1.0}), (1, {2: 1.0}), (0, {})]
    with pytest.raises(InputError, match=r"expected a label of .*`labels`"):
        read(write("a", f"{no} 1:1\nmaybe 2:1\n"), labels=(no, yes) if told else None)


def test_the_cure_names_the_two_labels_that_are_there(write: Write) -> None:
    with pytest.raises(InputError, match=r"line 2: .*found '2'. Say which two .*: `labels` 1,2;"):
        read(write("a", "1 1:1\n2 2:1\n1 3:1\n"))
    with pytest.raises(InputError, match=r"line 1: .*found 'no'. Say which two .*: `labels` no,yes$"):
        read(write("a", "no 1:1\nyes 2:1\nno 3:1\n"))
    with pytest.raises(InputError, match=r"Say which two .* with `labels` no,yes$"):
        read(write("a", "2 1:1\n3 2:1\n4 3:1\n"))


def test_rows_to_predict_need_no_label_that_is_known(write: Write) -> None:
    path = write("a", "? 1:1\n7 2:1\n-1 3:1\n")
    assert read(path, labelled=False)[0] == [(0, {1: 1.0}), (0, {2: 1.0}), (0, {3: 1.0})]
    with pytest.raises(InputError, match="a label"):
        read(write("a", "1:1 2:1\n"), labelled=False)


def test_rows_keep_their_numbers_where_others_are_skipped(write: Write) -> None:
    source = open_source(write("a", "# one\n0 1:1\noops\n\n1 2:1\n1 x\n0 3:1\n"), format="libsvm")
    chunks = list(read_clicks(source, Reading(skip_malformed=True)))
    assert np.concatenate([chunk.rows.numbers for chunk in chunks]).tolist() == [0, 2, 4]
    assert np.concatenate([chunk.lines for chunk in chunks]).tolist() == [2, 5, 7]


tokens = st.sampled_from(
    [
        "1:1",
        "2:0.5",
        "3:-1e-3",
        "10:7",
        "007:1",
        "1:1:1",
        ":",
        "5",
        "6:",
        "x",
        "2147483648:1",
        "8:nan",
        "4:1#",
        "#",
    ]
)
labels = st.sampled_from(["1", "0", "-1", "+1", "2", "", "1.0", "-0"])
gaps = st.sampled_from([" ", "  ", "\t", " \t"])
texts = st.lists(
    st.one_of(
        st.just("1 1:1 2:0.25 30:4"),
        st.builds(
            lambda label, gap, rest: gap.join([label, *rest]), labels, gaps, st.lists(tokens, max_size=4)
        ),
    ),
    max_size=6,
)


@given(texts)
def test_many_lines_at_once_are_those_read_one_by_one(texts: list[str]) -> None:
    fast = ClicksLines(0, 1000)
    try:
        rows, lines = fast.many("".join(f"{line}\n" for line in texts).encode())
    except Irregular:
        return
    slow = ClicksLines(0, 1000)
    expected = [(n, slow.one(line.encode())) for n, line in enumerate(texts)]
    kept = [(n, row) for n, row in expected if row is not None]
    assert lines.tolist() == [n for n, _ in kept]
    for fast_column, slow_column in zip(
        rows.columns(), slow.gather([row for _, row in kept]).columns(), strict=True
    ):
        assert fast_column.dtype == slow_column.dtype
        assert fast_column.tobytes() == slow_column.tobytes()
    assert fast.negative == slow.negative


@given(texts, st.integers(1, 60), st.integers(1, 60))
def test_blocks_and_halves_lose_no_line(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], block: int, small: int
) -> None:
    path = tmp_path_factory.mktemp("halves") / "a.svm"
    path.write_text("1 1:1\n0 1:1\n" + "".join(f"{line}\n" for line in texts))
    form, expected, skipped = ClicksLines(0, None), [], 0
    for line in path.read_text().split("\n"):
        try:
            row = form.one(line.encode())
        except Malformed:
            skipped += 1
            continue
        if row:
            expected.append((int(row[0] == 1), {n: float(np.float32(value)) for n, value in row[1].items()}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "BLOCK", block)
        patch.setattr(clicks_text, "SMALL", small)
        patch.setattr(losses, "FEW", 1000)
        rows, _, left_out = read(path, skip=True)
    assert (rows, left_out) == (expected, skipped)
