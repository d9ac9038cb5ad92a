"""The embedded channel keeps the contracts of store and bus."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlless.channels.embedded_bus import EmbeddedHub, EmbeddedLink
from mlless.channels.embedded_store import EmbeddedStore
from mlless.channels.ports import KeyValueStore, Link
from mlless.testing.contracts import Bus, BusContract, KeyValueStoreContract


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a local socket."""
    path = Path(tempfile.mkdtemp(prefix="mlless-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


class TestEmbeddedStore(KeyValueStoreContract):
    @pytest.fixture
    def open_store(self, folder: Path) -> Callable[[], KeyValueStore]:
        return lambda: EmbeddedStore(folder)


class EmbeddedBus:
    """Hub and links in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.hub = EmbeddedHub(folder)
        self._links: list[EmbeddedLink] = []

    def link(self, worker: int, generation: int) -> Link:
        self._links.append(EmbeddedLink(self._folder))
        return self._links[-1]

    def send_raw(self, link: Link, data: bytes) -> None:
        assert isinstance(link, EmbeddedLink)
        link._socket.sendall(struct.pack("<I", len(data)) + data)

    def close(self) -> None:
        for link in self._links:
            link.close()
        self.hub.close()


class TestEmbeddedBus(BusContract):
    @pytest.fixture
    def bus(self, folder: Path) -> Iterator[Bus]:
        bus = EmbeddedBus(folder)
        yield bus
        bus.close()
