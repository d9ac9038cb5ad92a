"""Sources: what is recognised, what is refused, and blocks of whole lines."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data.readers import Reading, open_source, read_clicks, read_ratings
from mlless.data.readers import text as text_module
from mlless.data.readers.parts import FilePart
from mlless.data.readers.source import Source
from mlless.data.readers.text import blocks, shortened
from mlless.errors import InputError, UsageError

Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("ratings.csv", "userId,movieId,rating\n1,2,3\n", "ratings"),
        ("ratings.dat", "1::2::3::4\n", "ratings"),
        ("u.data", "1\t2\t3\t4\n", "ratings"),
        ("table", "userId,movieId,rating\n1,2,3\n", "ratings"),
        ("table.txt", "1::2::3::4\n", "ratings"),
        ("table.gz", "1\t2\t3\t4\n", "ratings"),
        ("a9a", "-1 3:1 11:1 \n", "libsvm"),
        ("day.svm.gz", "1 0:0.5\n", "libsvm"),
        ("train.txt", "# a comment\n\n+1 5:1.5 # click\n", "libsvm"),
        ("long.txt", "1 " + " ".join(f"{n}:1" for n in range(20000)), "libsvm"),
    ],
)
def test_the_format_is_recognised(write: Write, name: str, text: str, format: str) -> None:
    assert open_source(write(name, text)).format == format


def test_a_given_format_holds(write: Write) -> None:
    assert open_source(write("odd.csv", "1 0:1\n"), format="libsvm").format == "libsvm"


def test_refuses_an_unknown_format_name(write: Write) -> None:
    with pytest.raises(UsageError, match="ratings or libsvm"):
        open_source(write("a", "1"), format="csv")


def test_refuses_libsvm_in_parquet(write: Write) -> None:
    with pytest.raises(UsageError, match="LIBSVM text only"):
        open_source(write("a", b"PAR1...."), format="libsvm")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.csv", b"", "an empty file"),
        ("empty.csv.gz", gzip.compress(b"", mtime=0), "an empty file"),
        ("text.gz", b"userId,movieId,rating\n", "not a gzip file"),
        ("cut.csv.gz", gzip.compress(b"1,2,3\n" * 99, mtime=0)[:-9], "a truncated gzip file"),
        ("bad.csv.gz", b"\x1f\x8b\x07" + bytes(20), "a damaged gzip file"),
        ("noise", bytes(range(256)), "not a text file"),
        ("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), r"a spreadsheet.*Save it as CSV"),
        ("wide.csv", "userId,movieId\n1,2".encode("utf-16"), "not a text file"),
        ("prose.txt", b"Call me Ishmael.\n", "unknown format.*`format`"),
        ("blank.txt", b"\n\n", "unknown format"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        open_source(path)
    assert str(path) in str(caught.value)


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        open_source(tmp_path / "none.csv")


def test_refuses_a_folder_without_files(tmp_path: Path) -> None:
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(InputError, match="no files of rows here"):
        open_source(tmp_path)


def test_a_gzip_file_cut_further_on_is_an_error_where_it_breaks_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_module, "BLOCK", 1000)
    text = "".join(f"{n}\t{n * 7919 % 1000}\t3\n" for n in range(50_000))
    path = tmp_path / "u.data.gz"
    path.write_bytes(gzip.compress(text.encode())[:-5000])
    with pytest.raises(InputError, match="a truncated gzip file"):
        list(read_ratings(open_source(path), Reading(skip_malformed=True)))


def test_refuses_an_endless_line(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "LONGEST_LINE", 1000)
    path = write("long.dat", "1::2::3\n" + "x" * 5000)
    with pytest.raises(InputError, match=r"line 2: a line longer than"):
        list(blocks(open_source(path), 100))


@given(
    lines=st.lists(st.text("ab \t", max_size=9), min_size=1),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    size=st.integers(1, 40),
)
def test_blocks_hold_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ending: str, last: bool, size: int
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "source"
    text = ending.join(lines) + (ending if last else "")
    path.write_bytes(text.encode())
    found: list[str] = []
    for block in blocks(Source("a", (FilePart(path, found=True),), "ratings", "text", b"", len(text)), size):
        assert block.first_line == len(found) + 1
        assert block.text.endswith(b"\n")
        found += block.text.decode().split("\n")[:-1]
    assert block.done == len(text) if text else True
    assert found == (lines if last or lines[-1] else lines[:-1])


def test_readers_refuse_the_other_kind(write: Write) -> None:
    with pytest.raises(UsageError, match="not a source of clicks"):
        read_clicks(open_source(write("u.data", "1\t2\t3\n")))
    with pytest.raises(UsageError, match="not a source of ratings"):
        read_ratings(open_source(write("a.svm", "1 2:3\n")))


def test_what_was_found_is_shown_short_and_printable() -> None:
    assert shortened(b"\xff\x00" + b"x" * 100) == repr("\\xff\0" + "x" * 55 + "...")
