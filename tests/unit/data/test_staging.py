"""A new folder appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlless.data.staging import check_replaceable, staged
from mlless.errors import ChannelError, UsageError

Everything = Callable[[Path], dict[str, bytes]]


def data_set(folder: Path, *extra: str) -> Path:
    folder.mkdir()
    for name in ("manifest.json", *extra):
        (folder / name).write_text(name)
    return folder


def test_what_was_put_in_new_takes_the_place(tmp_path: Path, everything: Everything) -> None:
    with staged(tmp_path / "a" / "b" / "data") as work:
        (work / "new" / "one").write_text("1")
        (work / "spool").mkdir()
    assert everything(tmp_path) == {"a/b/data/one": b"1"}


def test_an_old_folder_is_replaced_whole(tmp_path: Path, everything: Everything) -> None:
    dest = data_set(tmp_path / "data", "train")
    with staged(dest) as work:
        (work / "new" / "one").write_text("1")
    assert everything(tmp_path) == {"data/one": b"1"}


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), MemoryError(), ChannelError("no")])
@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_all_as_it_was(
    tmp_path: Path, everything: Everything, failure: BaseException, there: bool
) -> None:
    dest = data_set(tmp_path / "data") if there else tmp_path / "x" / "y" / "data"
    before = everything(tmp_path)
    with pytest.raises(type(failure)), staged(dest) as work:  # noqa: PT012
        (work / "new" / "one").write_text("1")
        raise failure
    assert everything(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["data"] if there else [])


def test_a_failed_exchange_puts_the_old_folder_back(tmp_path: Path, everything: Everything) -> None:
    dest = data_set(tmp_path / "data")
    with pytest.raises(ChannelError, match="cannot write"), staged(dest) as work:
        (work / "new").rmdir()
    assert everything(tmp_path) == {"data/manifest.json": b"manifest.json"}


def test_no_place_for_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ChannelError, match="cannot write"), staged(tmp_path / "file" / "data"):
        pass


def test_what_may_be_replaced(tmp_path: Path) -> None:
    check_replaceable(tmp_path / "new", False)
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty", True)
    check_replaceable(data_set(tmp_path / "data", "ids.safetensors", "train", "validation"), True)


@pytest.mark.parametrize("name", ["empty", "data"])
def test_nothing_is_replaced_unasked(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    data_set(tmp_path / "data")
    with pytest.raises(UsageError, match="`overwrite`"):
        check_replaceable(tmp_path / name, False)


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_data_set_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    data_set(tmp_path / "web", "index.html")
    for name, message in {
        "file": "already a file",
        "dangling": "already a file",
        "home": "not a data set.*thesis.tex",
        "web": "not a data set.*index.html",
    }.items():
        with pytest.raises(UsageError, match=message):
            check_replaceable(tmp_path / name, overwrite)
