"""The format of a text: found where it is plain, asked for where it is not."""

from __future__ import annotations

import pytest

from mlless.data.readers.guess import guess
from mlless.errors import InputError


@pytest.mark.parametrize(
    ("name", "start", "format"),
    [
        ("x.csv", b"userId,movieId,rating\n1,2,3\n", "ratings"),
        ("x.csv", b"1 5:1 7:2\n0 3:1\n", "libsvm"),  # the content counts
        ("x.svm", b"1,2,3\n4,5,6\n", "ratings"),
        ("x.svm", b"1\n0\n", "libsvm"),
        ("x", b"False 5:1\ntrue 7:2\n", "libsvm"),
        ("x.svm.gz", b"# nothing yet\n", "libsvm"),
        ("x.svm", b"1 5:1\nx\ny\nz\n", "libsvm"),
        ("x", b"1 5:1\n0\n0\n0\n", "libsvm"),
        ("x", b"1 5:1\n0 6:1\nx\n", "libsvm"),
        ("x", b"1" + b"\t" * 39 + b"\n", "criteo"),
        ("x", b"1|2|3\n", "ratings"),
    ],
)
def test_what_is_plain(name: str, start: bytes, format: str) -> None:
    assert guess(name, start, whole=True) == format


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (b"1\n0\n1\n", "bare numbers"),
        (b"5 3 1\n", "no separator of columns"),
        (b"1 5:1\nx y\nz\nu\n", "few of the first lines are LIBSVM"),
        (b"", "no 'index:value'"),
    ],
)
def test_what_is_not_is_asked_for(start: bytes, why: str) -> None:
    with pytest.raises(InputError, match=f"x: unknown format: .*{why}.*`format`"):
        guess("x", start, whole=True)


def test_what_may_be_cut_short_is_left_out() -> None:
    assert guess("x", b"1 5:1\n0 6", whole=False) == "libsvm"
    assert guess("x", b"1 5:1 6", whole=False) == "libsvm"
