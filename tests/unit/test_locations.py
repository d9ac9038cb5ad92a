"""Folders and URLs are told apart, and what is neither is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlless.errors import UsageError
from mlless.locations import Directory, Prefix, WebFile, check_local, place_of, scheme_of


def test_what_is_a_url() -> None:
    assert [scheme_of(url) for url in ("s3://b", "S3://b/x", "gs://b/x", "http://x", "s3://")] == [
        "s3",
        "s3",
        "gs",
        "http",
        "s3",
    ]
    assert not any(map(scheme_of, ("data", "/data", "s3:/b", "a:b//c", ".", "C:\\data", Path("data"))))


def test_a_url_names_bucket_and_prefix() -> None:
    for url, expected in {
        "s3://b": Prefix("s3", "b", ""),
        "s3://b/": Prefix("s3", "b", ""),
        "S3://my.bucket_1/a/b c/": Prefix("s3", "my.bucket_1", "a/b c"),
        "gs://b/%20": Prefix("gs", "b", "%20"),
    }.items():
        place = place_of(url)
        assert place == expected
        assert place_of(str(place)) == place_of(place.address) == place_of(place) == place


@pytest.mark.parametrize(
    "url", ["http://b/x", "s3://", "s3:///x", "ftp://b", "s3://b?x=1", "s3://k:hush@b/x"]
)
def test_what_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"expected s3://BUCKET/PREFIX.*object-store.md") as caught:
        place_of(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://b/a//b", "s3://b/../x", "s3://b/./x", "s3://b//x"])
def test_what_is_no_prefix_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a prefix"):
        place_of(url)


@pytest.mark.parametrize("url", ["s3://b/x", "https://host/x"])
def test_a_url_that_pathlib_took_apart_is_told(url: str) -> None:
    with pytest.raises(UsageError, match="Give the URL as a string"):
        place_of(Path(url))


def test_a_folder_is_shown_as_it_is_written(tmp_path: Path) -> None:
    place = place_of(tmp_path / "a" / "..")
    assert str(place) == str(tmp_path / "a" / "..")
    assert place.address == str(tmp_path.resolve())
    assert place_of("x") == Directory(Path("x"))


def test_an_address_of_a_web_server_is_shown_without_secrets() -> None:
    file = WebFile("https://me:hush@host:8443/a%20b/c.csv?signature=hush#part")
    assert str(file) == "https://host:8443/a%20b/c.csv"
    assert "hush" not in repr(file)


@pytest.mark.parametrize("url", ["s3://bucket/out.csv", "gs://bucket/out.csv", "https://host/out.csv"])
def test_where_only_a_file_can_be_written_a_url_is_told(url: str, tmp_path: Path) -> None:
    check_local(tmp_path / "out.csv")
    with pytest.raises(UsageError, match="a file of this machine"):
        check_local(Path(url))
