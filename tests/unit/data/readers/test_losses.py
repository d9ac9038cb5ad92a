"""Rows that are left out: few of them, never a whole class, and the cure is offered only where it is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlless.data.readers import Reading, open_source, read_clicks, read_ratings
from mlless.errors import InputError

Write = Callable[[str, str | bytes], Path]
SKIP = Reading(skip_malformed=True)


def ratings(good: int, bad: int) -> str:
    return "user,item,rating\n" + "1,2,3\n" * good + "1,2,good\n" * bad


def test_a_hundredth_of_the_rows_may_be_left_out_and_no_more(write: Write) -> None:
    chunks = list(read_ratings(open_source(write("r.csv", ratings(990, 10))), SKIP))
    assert sum(chunk.skipped for chunk in chunks) == 10
    with pytest.raises(InputError) as caught:
        list(read_ratings(open_source(write("r.csv", ratings(980, 11))), SKIP))
    assert "`skip_malformed` would leave out 11 of 991 rows" in str(caught.value)
    assert "line 982: expected a rating that is a finite number, found 'good'" in str(caught.value)


def test_the_most_common_reason_is_named(write: Write) -> None:
    text = ratings(500, 20) + "1,2,3,4\n" * 30
    with pytest.raises(InputError, match="30 for one reason, the first of them line 522: expected 3 columns"):
        list(read_ratings(open_source(write("r.csv", text)), SKIP))


def test_of_few_rows_more_may_be_left_out_but_not_all(write: Write) -> None:
    assert sum(chunk.skipped for chunk in read_ratings(open_source(write("r.csv", ratings(1, 3))), SKIP)) == 3
    with pytest.raises(InputError, match="would leave out 3 of 3 rows"):
        list(read_ratings(open_source(write("r.csv", ratings(0, 3))), SKIP))


def test_a_whole_class_is_not_left_out(write: Write) -> None:
    text = "0 1:1\n" * 500 + "1 1:nan\n" * 3
    with pytest.raises(InputError) as caught:
        list(read_clicks(open_source(write("a.svm", text)), SKIP))
    assert "would leave out 3 of 503 rows, all of one class among them" in str(caught.value)
    assert "found 'nan'. Leave a feature out of the row where its value is missing" in str(caught.value)
    chunks = read_clicks(open_source(write("a.svm", text)), SKIP, labelled=False)
    assert sum(chunk.skipped for chunk in chunks) == 3


def test_the_cure_is_offered_only_where_few_rows_are_malformed(write: Write) -> None:
    with pytest.raises(InputError, match="or leave such lines out with `skip_malformed`"):
        list(read_ratings(open_source(write("r.csv", ratings(1000, 3)))))
    for text, found in ((ratings(100, 50), "50 of the first 150"), (ratings(0, 20), "20 of the first 20")):
        with pytest.raises(InputError) as caught:
            list(read_ratings(open_source(write("r.csv", text))))
        assert f"{found} rows are so: check the format and the columns" in str(caught.value)
        assert "`skip_malformed`" not in str(caught.value)
