"""Several files, patterns, folders of parts, pipes: which rows a source has, and what is refused."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from mlless.data.features import Layout
from mlless.data.partition import partition
from mlless.data.readers import open_source, read_ratings
from mlless.data.readers.finding import Sources
from mlless.errors import InputError, UsageError

HEADER = "userId,movieId,rating\n"


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def users(sources: Sources) -> list[int]:
    chunks = [chunk.rows.users for chunk in read_ratings(open_source(sources))]
    return np.concatenate(chunks).tolist()


def parquet(path: Path, **columns: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of parts as Spark writes it."""
    root = tmp_path / "out"
    put(root / "_SUCCESS", "")
    put(root / "._SUCCESS.crc", "x")
    put(root / "part-00001.csv.crc", "x")
    put(root / ".hidden" / "part.csv", "x")
    put(root / "_temporary" / "0" / "part-00009.csv", "x")
    put(root / "part-00001.csv", HEADER + "2,5,1\n")
    put(root / "part-00000.csv", HEADER + "1,5,1\n")
    put(root / "part-00002.csv", "")
    put(root / "day=2" / "hour=1" / "part-00000.csv.gz", gzip.compress(HEADER.encode() + b"4,5,1\n"))
    put(root / "day=1" / "part-00000.csv", HEADER + "3,5,1\n")
    return root


def test_a_folder_is_read_in_order_without_marks_and_checksums(folder: Path) -> None:
    assert users(folder) == users(f"{folder}/") == [3, 4, 1, 2]


def test_patterns_are_expanded(folder: Path) -> None:
    assert users(f"{folder}/part-*") == [1, 2]
    assert users(f"{folder}/**/*.csv*") == [3, 4, 1, 2]
    assert users(f"{folder}/day=[12]") == [3, 4]
    assert users(f"{folder}/**") == [3, 4, 1, 2]


def test_several_sources_are_read_in_the_order_given(folder: Path) -> None:
    source = open_source([folder / "part-00001.csv", f"{folder}/day=1"])
    assert source.name == f"{folder}/part-00001.csv and 1 more"
    assert source.bytes == 2 * len(HEADER + "2,5,1\n")
    assert users([folder / "part-00001.csv", f"{folder}/day=1"]) == [2, 3]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    put(tmp_path / "a1.csv", HEADER + "1,5,1\n")
    assert users(put(tmp_path / "a[1].csv", HEADER + "2,5,1\n")) == [2]


def test_only_the_first_part_needs_a_header(tmp_path: Path) -> None:
    first = put(tmp_path / "a.csv", HEADER + "1,5,1\n")
    assert users([first, put(tmp_path / "b.csv", "2,5,1\n")]) == [1, 2]


def test_another_header_is_refused(tmp_path: Path) -> None:
    first, second = put(tmp_path / "a.csv", HEADER + "1,5,1\n"), tmp_path / "b.csv"
    for header in ("movieId,userId,rating", "userId,movieId,rating,timestamp", "userId,movieId"):
        put(second, f"{header}\n1,2,3\n")
        with pytest.raises(
            InputError, match=rf"b\.csv: parts with other columns: .*as in .*a\.csv, found {header[:5]}"
        ):
            users([first, second])


def test_the_same_holds_for_tables_of_clicks(tmp_path: Path) -> None:
    layout = Layout(label="c", numeric=("x",), categorical=("s",))
    put(tmp_path / "t" / "1.csv", "c,x,s\n1,2,a\n")
    put(tmp_path / "t" / "2.csv", "c,x,s\n0,3,b\n")
    put(tmp_path / "t" / "3.csv", "1,4,c\n")
    assert partition(tmp_path / "t", tmp_path / "d", columns=layout, validation=0.0).manifest.rows == 3
    put(tmp_path / "t" / "4.csv", "x,c,s\n3,0,b\n")
    with pytest.raises(InputError, match=r"4\.csv: parts with other columns.*1\.csv"):
        partition(tmp_path / "t", tmp_path / "e", columns=layout)


def test_an_error_names_the_part_and_its_line(folder: Path, tmp_path: Path) -> None:
    put(folder / "part-00001.csv", HEADER + "2,5,1\n2,6,x\n")
    with pytest.raises(InputError, match=r"part-00001\.csv, line 3: malformed line"):
        partition(folder, tmp_path / "d")


def test_rows_are_numbered_through(tmp_path: Path) -> None:
    from mlless.data.readers import read_clicks

    source = [put(tmp_path / "a.svm", "1 1:1\n0 2:1\n"), put(tmp_path / "b.svm", "1 3:1")]
    chunks = list(read_clicks(open_source(source)))
    assert np.concatenate([chunk.rows.numbers for chunk in chunks]).tolist() == [0, 1, 2]
    assert [chunk.lines.tolist() for chunk in chunks] == [[1, 2], [1]]


def test_parquet_parts(tmp_path: Path) -> None:
    root = tmp_path / "p"
    parquet(root / "b.parquet", user=[2], item=[5], rating=[1.0])
    parquet(root / "a.parquet", user=[1], item=[5], rating=[1.0], more=["x"])
    put(root / "c.parquet", "")
    assert users(root) == [1, 2]
    parquet(root / "c.parquet", userId=[2], item=[5], rating=[1.0])
    with pytest.raises(
        InputError, match=r"c\.parquet: parts with other columns.*user, item, rating, as in .*a\.parquet"
    ):
        users(root)
    parquet(root / "c.parquet", user=[2], item=[None], rating=[1.0])
    with pytest.raises(InputError, match=r"c\.parquet, column item: wrong type"):
        users(root)


def test_a_mix_of_layouts_is_refused(tmp_path: Path) -> None:
    text = put(tmp_path / "a.csv", HEADER + "1,5,1\n")
    table = parquet(tmp_path / "b.parquet", user=[1], item=[5], rating=[1.0])
    with pytest.raises(
        InputError, match=r"b\.parquet: parts of different kinds: expected text, as .*a\.csv, found Parquet"
    ):
        users([text, table])
    with pytest.raises(
        InputError, match=r"a\.csv: parts of different kinds: expected parquet, as .*b\.parquet"
    ):
        users([table, text])


@pytest.mark.parametrize(("mark", "kind"), [("_delta_log", "a Delta table"), (".hoodie", "a Hudi table")])
def test_a_folder_with_deleted_rows_is_refused(folder: Path, mark: str, kind: str) -> None:
    (folder / mark).mkdir()
    with pytest.raises(InputError, match=kind):
        open_source(folder)


def test_a_data_set_is_no_source(folder: Path, tmp_path: Path) -> None:
    partition(folder, tmp_path / "d")
    with pytest.raises(InputError, match=r"/d: a data set, not raw rows\. Train on it"):
        partition(tmp_path / "d", tmp_path / "e")


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\*\.csv: no file matches this pattern"):
        open_source(tmp_path / "*.csv")
    with pytest.raises(UsageError, match="no source"):
        open_source([])
    put(tmp_path / "a" / "1.csv", "")
    with pytest.raises(InputError, match="nothing but empty files"):
        open_source(tmp_path / "a")


def test_a_source_named_twice_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="named twice"):
        open_source([folder, folder / "part-00000.csv"])


def test_a_named_file_that_is_empty_is_refused(tmp_path: Path) -> None:
    full, empty = put(tmp_path / "a.csv", HEADER + "1,5,1\n"), put(tmp_path / "b.csv", "")
    for order in ([full, empty], [empty, full]):
        with pytest.raises(InputError, match=r"b\.csv: an empty file"):
            users(order)


def test_a_source_below_its_destination_is_not_replaced(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"the source would be replaced|not a data set"):
        partition(folder, folder, overwrite=True)
    assert users(folder) == [3, 4, 1, 2]


class Pipe:
    """Standard input as a pipe that another thread fills."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
        reading, writing = os.pipe()
        self.stdin = io.TextIOWrapper(os.fdopen(reading, "rb"))
        monkeypatch.setattr(sys, "stdin", self.stdin)
        self.thread = threading.Thread(target=self._fill, args=(writing, data))
        self.thread.start()

    def _fill(self, writing: int, data: bytes) -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(10.0)
        self.stdin.close()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_is_read_once_and_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    text = (HEADER + "".join(f"{n},{n * 31 % 977},3\n" for n in range(100_000))).encode()
    told: list[tuple[float | None, str]] = []
    with Pipe(monkeypatch, pack(text)):
        piped = partition("-", tmp_path / "piped", progress=lambda share, what: told.append((share, what)))
    stored = partition(put(tmp_path / "r.csv", text), tmp_path / "stored")
    assert piped.manifest.train == stored.manifest.train
    assert piped.manifest.made.source == "standard input"
    assert piped.manifest.made.source_bytes == len(pack(text))
    assert told[0][0] is None
    assert told[0][1].startswith("reading, ")


def test_standard_input_that_cannot_be_read_in_order_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = parquet(tmp_path / "a.parquet", user=[1], item=[5], rating=[1.0]).read_bytes()
    with (
        Pipe(monkeypatch, data),
        pytest.raises(InputError, match=r"standard input: Parquet and zip.*Save it to a file"),
    ):
        partition("-", tmp_path / "d")


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_text, args=(HEADER + "7,5,1\n",))
    thread.start()
    assert users(path) == [7]
    thread.join(10.0)
