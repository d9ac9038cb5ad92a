"""Folders and URLs are told apart, and what is neither is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlless.channels.opening import open_objects
from mlless.errors import UsageError
from mlless.locations import absolute, check_local, folder_of, is_remote, last_name, prefix_of


def test_what_is_a_url() -> None:
    assert all(map(is_remote, ("s3://b", "S3://b/x", "gs://b/x", "http://x", "s3://")))
    assert not any(map(is_remote, ("data", "/data", "s3:/b", "a:b//c", ".", "C:\\data", Path("data"))))


def test_a_url_names_bucket_and_prefix() -> None:
    for url, expected in {
        "s3://b": ("s3", "b", ""),
        "s3://b/": ("s3", "b", ""),
        "S3://my.bucket_1/a/b c/": ("s3", "my.bucket_1", "a/b c"),
        "gs://b/%20": ("gs", "b", "%20"),
    }.items():
        prefix = prefix_of(url)
        assert (prefix.scheme, prefix.bucket, prefix.path) == expected
        assert prefix_of(str(prefix)) == prefix


@pytest.mark.parametrize(
    "url", ["http://b/x", "s3://", "s3:///x", "ftp://b", "s3://b?x=1", "s3://k:hush@b/x"]
)
def test_what_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"expected s3://BUCKET/PREFIX.*object-store.md") as caught:
        open_objects(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://b/a//b", "s3://b/../x", "s3://b/./x", "s3://b//x"])
def test_what_is_no_prefix_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a prefix"):
        prefix_of(url)


def test_a_url_that_pathlib_took_apart_is_told() -> None:
    with pytest.raises(UsageError, match="Give the URL as a string"):
        open_objects(Path("s3://b/x"))


def test_locations_as_text(tmp_path: Path) -> None:
    assert absolute("s3://b/x/") == "s3://b/x"
    assert absolute(tmp_path / "a" / "..") == str(tmp_path.resolve())
    assert folder_of("x") == Path("x")
    assert [last_name(one) for one in ("s3://b/x/y/", "s3://b", tmp_path / "d")] == ["y", "b", "d"]


@pytest.mark.parametrize("url", ["s3://bucket/out.csv", "gs://bucket/out.csv"])
def test_where_only_a_file_can_be_written_a_url_is_told(url: str, tmp_path: Path) -> None:
    check_local(tmp_path / "out.csv")
    with pytest.raises(UsageError, match="a file of this machine"):
        check_local(Path(url))
