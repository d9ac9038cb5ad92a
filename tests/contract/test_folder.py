"""A folder keeps the contract of an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlless.channels.folder import Folder
from mlless.channels.ports import ObjectStore
from mlless.errors import ChannelError, MissingObject
from mlless.testing.contracts import ObjectStoreContract


class TestFolder(ObjectStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], ObjectStore]:
        return lambda: Folder(tmp_path / "place")

    def test_nothing_is_left_of_how_it_was_written(self, tmp_path: Path) -> None:
        store = Folder(tmp_path)
        for n in range(3):
            store.put("a/b", bytes(n))
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b"]

    def test_a_place_that_cannot_be_written_is_named_and_left_clean(self, tmp_path: Path) -> None:
        (tmp_path / "taken").mkdir()
        (tmp_path / "file").write_bytes(b"")
        for path in ("taken", "file/below"):
            with pytest.raises(ChannelError, match=f"{path}: cannot write"):
                Folder(tmp_path).put(path, b"x")
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "taken"]

    def test_the_first_bytes_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "some").write_bytes(b"abcdef")
        assert Folder(tmp_path).head("some", 3) == b"abc"
        assert Folder(tmp_path).head("some", 30) == b"abcdef"
        with pytest.raises(MissingObject, match="none"):
            Folder(tmp_path).head("none", 1)

    def test_a_folder_is_no_object(self, tmp_path: Path) -> None:
        (tmp_path / "taken").mkdir()
        with pytest.raises(ChannelError, match="taken: cannot read: Is a directory"):
            Folder(tmp_path).get("taken")
