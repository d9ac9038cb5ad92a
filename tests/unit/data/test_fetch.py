"""Fetching from a server of this machine: whole, in parts, damaged, and not at all."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from publisher import Publisher, archive_of, publisher

from mlless.data import download, movielens
from mlless.data.movielens import ADDRESS_VARIABLE, Fetched, fetch
from mlless.errors import ChannelError, InputError, UsageError

RATINGS = b"".join(b"%d\t%d\t3\t%d\n" % (n % 90 + 1, n % 70 + 1, n * 7919) for n in range(3000))
MEMBERS = {"ml-100k/README": b"the terms", "ml-100k/u.data": RATINGS, "ml-100k/u.item": b"not wanted"}


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    monkeypatch.setattr(download, "BLOCK", 1000)
    with publisher() as published:
        monkeypatch.setenv(ADDRESS_VARIABLE, published.url)
        published.publish("ml-100k", MEMBERS)
        yield published


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")} if folder.exists() else set()


def test_ratings_and_terms_are_fetched_and_checked(source: Publisher, tmp_path: Path) -> None:
    told: list[str] = []
    moved: list[float] = []
    dest = tmp_path / "deep" / "there"
    got = fetch("ml-100k", dest, tell=told.append, progress=lambda done, what: moved.append(done))
    md5 = hashlib.md5(source.files["/ml-100k.zip"]).hexdigest()
    assert got == Fetched(dest / "u.data", dest / "README", md5, checked=True)
    assert got.ratings.read_bytes() == RATINGS
    assert files(dest) == {"u.data", "README"}
    assert "redistribute" in told[0]
    assert moved == sorted(moved)
    assert moved[-1] == 1.0
    with pytest.raises(UsageError, match="already there"):
        fetch("ml-100k", dest)
    fetch("ml-100k", dest, overwrite=True)


def test_a_broken_connection_is_gone_on_with(source: Publisher, tmp_path: Path) -> None:
    whole = len(source.files["/ml-100k.zip"])
    source.breaks = [2000, 1500, 0, 0]
    assert fetch("ml-100k", tmp_path).ratings.read_bytes() == RATINGS
    ranges = [wanted for path, wanted in source.asked if path.endswith(".zip")]
    assert ranges == [None, "bytes=2000-", "bytes=3500-", "bytes=3500-", "bytes=3500-"]
    assert whole > 3500


def test_a_given_up_fetch_goes_on_later(source: Publisher, tmp_path: Path) -> None:
    source.breaks = [2000, 0, 0, 0]
    with pytest.raises(ChannelError, match="goes on where this one stopped"):
        fetch("ml-100k", tmp_path)
    assert files(tmp_path) == {"ml-100k.zip.part", "ml-100k.zip.part.tag"}
    assert fetch("ml-100k", tmp_path).ratings.read_bytes() == RATINGS
    assert source.asked[-1] == ("/ml-100k.zip", "bytes=2000-")
    assert files(tmp_path) == {"u.data", "README"}


@pytest.mark.parametrize("change", ["tag", "ranges", "weak"])
def test_a_part_is_begun_anew_where_it_may_not_fit(source: Publisher, tmp_path: Path, change: str) -> None:
    if change == "weak":
        source.tag = 'W/"one"'
    source.breaks = [2000, 0, 0, 0] if change != "weak" else [2000] * 3
    if change != "weak":
        with pytest.raises(ChannelError):
            fetch("ml-100k", tmp_path)
    if change == "tag":
        source.publish("ml-100k", {"ml-100k/u.data": RATINGS[:5000]})
        source.tag = '"two"'
    source.ranges = change != "ranges"
    assert fetch("ml-100k", tmp_path).ratings.read_bytes() in (RATINGS, RATINGS[:5000])


def test_a_part_longer_than_the_file_is_dropped(source: Publisher, tmp_path: Path) -> None:
    (tmp_path / "ml-100k.zip.part").write_bytes(bytes(100_000))
    (tmp_path / "ml-100k.zip.part.tag").write_text(source.tag)
    assert fetch("ml-100k", tmp_path).ratings.read_bytes() == RATINGS


def test_a_busy_server_is_asked_again(source: Publisher, tmp_path: Path) -> None:
    source.files["/ml-latest-small.zip"] = archive_of({"ml-latest-small/ratings.csv": b"userId\n"})
    source.statuses = [503, 502]
    got = fetch("ml-latest-small", tmp_path / "small")
    assert not got.checked
    assert got.readme is None
    source.statuses = [503] * 4
    with pytest.raises(ChannelError, match="503"):
        fetch("ml-latest-small", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_is_not_there_is_said_so(source: Publisher, tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="404"):
        fetch("ml-1m", tmp_path / "none")
    with pytest.raises(UsageError, match="ml-latest-small"):
        fetch("ml-2m", tmp_path / "none")  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_another_archive_than_published_is_refused(source: Publisher, tmp_path: Path) -> None:
    source.files["/ml-100k.zip"] = archive_of({"ml-100k/u.data": b"1\t1\t5\n"})
    with pytest.raises(InputError, match="not the archive that was published"):
        fetch("ml-100k", tmp_path)
    source.files["/ml-100k.zip.md5"] = b"<html>not today</html>"
    with pytest.raises(InputError, match="no MD5 sum"):
        fetch("ml-100k", tmp_path)
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"../u.data": b"1\t1\t5\n", "/ml-100k/u.data": b""}, "no ratings"),
        ({}, "no ratings"),
        (None, "damaged"),
    ],
)
def test_an_archive_of_anything_else_is_refused(
    source: Publisher, tmp_path: Path, members: dict[str, bytes] | None, says: str
) -> None:
    source.publish("ml-100k", members or {})
    if members is None:
        data = source.files["/ml-100k.zip"] = b"PK no zip"
        source.files["/ml-100k.zip.md5"] = hashlib.md5(data).hexdigest().encode()
    with pytest.raises(InputError, match=says):
        fetch("ml-100k", tmp_path / "dest")
    assert files(tmp_path) == {"dest"}


def test_a_bomb_does_not_go_off(source: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens, "_LARGEST", 100_000)
    source.publish("ml-100k", {"ml-100k/u.data": bytes(1_000_000)})
    with pytest.raises(InputError, match="larger than it can be"):
        fetch("ml-100k", tmp_path)
    assert files(tmp_path) == set()


def test_offline_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}", "http://publisher.invalid"):
        monkeypatch.setenv(ADDRESS_VARIABLE, address)
        for name in ("ml-20m", "ml-latest-small"):
            with pytest.raises(ChannelError, match=r"cannot be reached.*Check the connection") as caught:
                fetch(name, tmp_path / "dest")  # type: ignore[arg-type]
            assert caught.value.exit_code == 5
    monkeypatch.setenv(ADDRESS_VARIABLE, "file:///etc")
    with pytest.raises(ChannelError, match="not a web address"):
        fetch("ml-1m", tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_any_breaks_end_in_the_same_bytes(source: Publisher, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    source.breaks = random.integers(1, 3000, 12).tolist()
    data = random.bytes(12_000)
    source.publish("ml-100k", {"ml-100k/u.data": data})
    assert fetch("ml-100k", tmp_path).ratings.read_bytes() == data
