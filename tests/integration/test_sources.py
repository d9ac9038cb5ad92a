"""Raw rows from afar: read as they come from object stores and web servers, without being stored."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from servers.s3 import S3Server
from servers.web import WebServer

import mlless
from mlless.channels import remote_objects
from mlless.data.dataset import Dataset
from mlless.data.readers import open_source
from mlless.data.synthetic import write_ratings
from mlless.errors import ChannelError, InputError, UsageError
from mlless.prediction import as_dataset


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("raw") / "ratings.csv"
    write_ratings(path, users=200, items=100, rows=10_000, seed=5)
    return path.read_bytes()


@pytest.fixture
def here(rows: bytes, tmp_path: Path) -> Dataset:
    (tmp_path / "ratings.csv").write_bytes(rows)
    return mlless.partition(tmp_path / "ratings.csv", tmp_path / "here")


def put(s3: S3Server, bucket: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = s3.folder / bucket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def halves(rows: bytes) -> tuple[bytes, bytes]:
    """Return the rows in two parts, each with the header."""
    header, _, rest = rows.partition(b"\n")
    middle = rest.index(b"\n", len(rest) // 2) + 1
    return header + b"\n" + rest[:middle], header + b"\n" + rest[middle:]


def test_an_object_is_read_as_a_file_is(
    rows: bytes, here: Dataset, bucket: str, s3: S3Server, tmp_path: Path
) -> None:
    put(s3, bucket, {"raw/ratings.csv.gz": gzip.compress(rows)})
    shares: list[float | None] = []
    there = mlless.partition(
        f"s3://{bucket}/raw/ratings.csv.gz",
        tmp_path / "there",
        progress=lambda share, _: shares.append(share),
    )
    assert there.manifest.train == here.manifest.train
    assert None not in shares
    assert there.manifest.made.source_bytes == len(gzip.compress(rows))


def test_a_prefix_of_parts_and_patterns(
    rows: bytes, here: Dataset, bucket: str, s3: S3Server, tmp_path: Path
) -> None:
    first, second = halves(rows)
    put(
        s3,
        bucket,
        {
            "out/_SUCCESS": b"",
            "out/.part-0.csv.crc": b"x",
            "out/_temporary/0/part-9.csv": b"x",
            "out/day=1/part-0.csv": first,
            "out/day=2/part-0.csv.gz": gzip.compress(second),
            "out/day=2/part-1.csv": b"",
            "other/part-0.csv": b"x",
        },
    )
    for number, source in enumerate(
        ("out", "out/", "ou[t]", "out/day=*", "out/*/part-*", "out/**", "out/**/*.cs*", "**/day=?/*")
    ):
        there = mlless.partition(f"s3://{bucket}/{source}", tmp_path / str(number))
        assert there.manifest.train == here.manifest.train
    names = [part.name for part in open_source(f"s3://{bucket}/out").parts]
    assert names == [f"s3://{bucket}/out/day={end}" for end in ("1/part-0.csv", "2/part-0.csv.gz")]


def test_an_object_with_unusual_characters(
    rows: bytes, here: Dataset, bucket: str, s3: S3Server, tmp_path: Path
) -> None:
    names = ["my data/a%20b.csv", "ü=é/x+y#z.csv"]
    for number, (name, half) in enumerate(zip(names, halves(rows), strict=True)):
        put(s3, bucket, {f"{number}/{name}": half})
    sources = [f"s3://{bucket}/0/{names[0]}", f"s3://{bucket}/1"]
    assert mlless.partition(sources, tmp_path / "there").manifest.train == here.manifest.train


def test_of_parquet_only_what_is_wanted_is_read(
    bucket: str, s3: S3Server, web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_objects, "_AROUND", 4096)
    path, count = tmp_path / "r.parquet", 100_000
    numbers = np.random.default_rng(1).integers(0, 2**62, (3, count))
    table = {"user": range(count), "item": numbers[0] % 7, "rating": numbers[1] % 5, "else": numbers[2]}
    pyarrow.parquet.write_table(pyarrow.table({name: list(column) for name, column in table.items()}), path)
    here = mlless.partition(path, tmp_path / "here")
    web.files["/r.parquet"], web.ranges = path.read_bytes(), True
    assert mlless.partition(f"{web.url}/r.parquet", tmp_path / "web").manifest.train == here.manifest.train
    bounds = [tuple(map(int, re.findall(r"\d+", wanted))) for _, _, wanted, _ in web.requests if wanted]
    assert 0 < sum(last + 1 - first for first, last in bounds) < path.stat().st_size // 2
    web.ranges = False
    put(s3, bucket, {"r.parquet": path.read_bytes()})
    for address in (f"{web.url}/r.parquet", f"s3://{bucket}/r.parquet"):  # rclone does not serve parts either
        with pytest.raises(ChannelError, match=r"r\.parquet: the server does not serve parts .*Save it"):
            mlless.partition(address, tmp_path / "none")


def test_a_data_set_and_raw_rows_are_told_apart(
    rows: bytes, bucket: str, s3: S3Server, web: WebServer
) -> None:
    put(s3, bucket, {"raw/ratings.csv": rows})
    web.files["/ratings.csv"] = rows
    mlless.partition(f"s3://{bucket}/raw", f"s3://{bucket}/data")
    assert as_dataset(f"s3://{bucket}/data") is not None
    with pytest.raises(InputError, match=rf"s3://{bucket}/data: a data set, not raw rows"):
        open_source(f"s3://{bucket}/data")
    for source in (f"s3://{bucket}/raw", f"s3://{bucket}/raw/ratings.csv", f"{web.url}/ratings.csv", "-"):
        assert as_dataset(source) is None


def test_raw_rows_below_the_destination_are_not_replaced(rows: bytes, bucket: str, s3: S3Server) -> None:
    put(s3, bucket, {"a/raw/ratings.csv": rows})
    with pytest.raises(UsageError, match=r"not a data set|the source would be replaced"):
        mlless.partition(f"s3://{bucket}/a/raw/ratings.csv", f"s3://{bucket}/a", overwrite=True)


@pytest.mark.parametrize("wanted", ["none.csv", "none", "n*e"])
def test_what_is_not_there_is_told(bucket: str, s3: S3Server, wanted: str) -> None:
    told = f"s3://{bucket}/{re.escape(wanted)}: (no files of rows here|no file matches)"
    with pytest.raises(InputError, match=told):
        open_source(f"s3://{bucket}/{wanted}")


def test_a_file_of_a_web_server(rows: bytes, here: Dataset, web: WebServer, tmp_path: Path) -> None:
    web.files["/a b/ratings.csv"] = web.files["/a%20b/ratings.csv"] = rows
    url = web.url.replace("//", "//me:s3cr%40t@") + "/a%20b/ratings.csv?signature=s3cret"
    there = mlless.partition(url, tmp_path / "there")
    assert there.manifest.train == here.manifest.train
    assert there.manifest.made.source == "ratings.csv"
    assert there.manifest.made.source_bytes == len(rows)
    assert {(path, key) for _, path, _, key in web.requests} == {
        ("/a%20b/ratings.csv?signature=s3cret", "Basic bWU6czNjckB0")
    }


def test_no_error_shows_a_secret_of_an_address(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(remote_objects._RETRY, "max_retries", 0)
    url = web.url.replace("//", "//me:hush@") + "/none.csv?signature=hush"
    for source in (url, url.replace("/none.csv", ":1/none.csv"), [url, url], url.replace("http:", "https:")):
        with pytest.raises((InputError, ChannelError, UsageError)) as told:
            open_source(source)
        assert "hush" not in str(told.value)
        assert "none.csv" in str(told.value)


def test_a_missing_file_of_a_web_server_is_told(web: WebServer) -> None:
    with pytest.raises(InputError, match=r"/none\.csv: there is no such file: found status 404"):
        open_source(f"{web.url}/none.csv")


def test_a_size_that_is_not_told_is_an_error(rows: bytes, web: WebServer) -> None:
    web.files["/r.csv"], web.chunked = rows, True
    with pytest.raises(ChannelError, match=r"r\.csv: the server does not tell the size of the file"):
        open_source(f"{web.url}/r.csv")


def test_a_connection_that_breaks_is_taken_up_or_told(
    rows: bytes, here: Dataset, web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(remote_objects._RETRY, "retry_timeout", timedelta(0))  # also after hours
    web.files["/r.csv"], web.cut_at, web.ranges = rows, len(rows) // 2, True
    there = mlless.partition(f"{web.url}/r.csv", tmp_path / "there")
    assert there.manifest.train == here.manifest.train
    web.ranges = False
    with pytest.raises(ChannelError, match=r"r\.csv: cannot read.*The connection broke off|Try again"):
        mlless.partition(f"{web.url}/r.csv", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_zip_file_is_read_where_it_is(rows: bytes, here: Dataset, web: WebServer, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("r.csv", rows)
    web.files["/r.zip"], web.ranges = packed.getvalue(), True
    assert mlless.partition(f"{web.url}/r.zip", tmp_path / "there").manifest.train == here.manifest.train


def test_several_files_of_web_servers_tell_rows_instead_of_a_share(
    rows: bytes, here: Dataset, web: WebServer, tmp_path: Path
) -> None:
    web.files["/1.csv"], web.files["/2.csv"] = halves(rows)
    told: list[tuple[float | None, str]] = []
    there = mlless.partition(
        [f"{web.url}/1.csv", f"{web.url}/2.csv"],
        tmp_path / "there",
        progress=lambda share, what: told.append((share, what)),
    )
    assert there.manifest.train == here.manifest.train
    assert told[1] == (None, "reading, 10,000 rows")


def test_addresses_of_other_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match=r"expected .*https://.*found ftp://host/x"):
        open_source("ftp://host/x")
