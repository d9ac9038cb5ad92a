"""What is particular to the embedded channel: its folder, its files and its frames."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mlless.channels import embedded_store
from mlless.channels.embedded_bus import EmbeddedHub, EmbeddedLink
from mlless.channels.embedded_store import EmbeddedStore, job_folder, sweep
from mlless.errors import ChannelError, CodecError, Disconnected, MissingUpdate, UsageError
from mlless.messages import PROTOCOL, Abort, Hello, encode

HELLO = Hello(worker=3, generation=0, pid=1, protocol=PROTOCOL, version="0")
DEADLINE = 30.0


def framed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a local socket."""
    path = Path(tempfile.mkdtemp(prefix="mlless-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def hub(folder: Path) -> Iterator[EmbeddedHub]:
    hub = EmbeddedHub(folder)
    yield hub
    hub.close()


@pytest.fixture
def raw(hub: EmbeddedHub, folder: Path) -> Iterator[socket.socket]:
    """A stranger's socket to the hub."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(folder / "bus"))
        yield connection


class TestFrames:
    def test_a_message_may_come_byte_by_byte(self, hub: EmbeddedHub, raw: socket.socket) -> None:
        for byte in framed(encode(HELLO))[:-1]:
            raw.sendall(bytes([byte]))
            assert hub.receive(0.0) is None
        raw.sendall(framed(encode(HELLO))[-1:])
        assert hub.receive(DEADLINE) == HELLO

    def test_messages_may_come_together(self, hub: EmbeddedHub, raw: socket.socket) -> None:
        raw.sendall(framed(encode(HELLO)) * 50)
        assert [hub.receive(DEADLINE) for _ in range(50)] == [HELLO] * 50

    @pytest.mark.parametrize("length", [(16 << 20) + 1, 2**31, 2**32 - 1])
    def test_a_frame_too_long_is_refused_when_it_is_announced(
        self, hub: EmbeddedHub, raw: socket.socket, length: int
    ) -> None:
        raw.sendall(struct.pack("<I", length))
        with pytest.raises(CodecError, match="a stranger: message too long"):
            hub.receive(DEADLINE)

    def test_a_stranger_is_called_one(self, hub: EmbeddedHub, raw: socket.socket) -> None:
        raw.sendall(framed(b"GET / HTTP/1.1"))
        with pytest.raises(CodecError, match="a stranger"):
            hub.receive(DEADLINE)

    def test_random_streams_end_in_codec_errors_and_never_stop_the_others(
        self, hub: EmbeddedHub, folder: Path
    ) -> None:
        """300 strangers with random bytes; then a worker is heard as if nothing had been."""
        random = np.random.default_rng(0)
        for n in range(300):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
                stranger.connect(str(folder / "bus"))
                body = bytes(random.integers(0, 256, random.integers(0, 60)).astype(np.uint8))
                stranger.sendall(framed(body) if n % 2 else body)
            try:
                while hub.receive(0.0) is not None:
                    pass
            except CodecError:
                pass
        link = EmbeddedLink(folder)
        link.send(HELLO)
        for _ in range(400):
            try:
                message = hub.receive(DEADLINE)
            except CodecError:
                continue
            break
        assert message == HELLO
        link.close()

    def test_a_supervisor_that_sends_garbage_is_an_error_at_the_link(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(folder / "bus"))
            listener.listen()
            link = EmbeddedLink(folder)
            connection, _ = listener.accept()
            with connection:
                connection.sendall(framed(b"garbage") + framed(encode(Abort("then"))))
                with pytest.raises(CodecError, match="not a supervisor's message"):
                    link.receive(DEADLINE)
                assert link.receive(DEADLINE) == Abort("then")
                connection.sendall(struct.pack("<I", 2**32 - 1))
                with pytest.raises(CodecError, match="message too long"):
                    link.receive(DEADLINE)
            link.close()

    def test_a_message_cut_short_by_the_end_is_no_message(self, hub: EmbeddedHub, raw: socket.socket) -> None:
        raw.sendall(framed(encode(HELLO))[:-1])
        raw.shutdown(socket.SHUT_WR)
        assert hub.receive(0.01) is None


class TestLink:
    def test_without_a_supervisor_there_is_no_link(self, folder: Path) -> None:
        with pytest.raises(Disconnected, match="the supervisor is not there"):
            EmbeddedLink(folder)

    def test_a_socket_nobody_listens_to_is_no_link(self, folder: Path) -> None:
        EmbeddedHub(folder).close()
        with pytest.raises(Disconnected):
            EmbeddedLink(folder)


class TestFolder:
    def test_it_is_private_and_where_it_is_told_to_be(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = Path(tempfile.mkdtemp(dir="/tmp"))
        monkeypatch.setenv("MLLESS_CHANNEL_DIR", str(chosen))
        with job_folder(1) as folder:
            assert folder.parent == chosen
            assert folder.stat().st_mode & 0o777 == 0o700
        assert not list(chosen.iterdir())
        shutil.rmtree(chosen)

    def test_a_wish_too_long_for_a_socket_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deep = tmp_path / ("d" * 100)
        deep.mkdir()
        monkeypatch.setenv("MLLESS_CHANNEL_DIR", str(deep))
        with pytest.raises(UsageError, match="too long for a local socket"), job_folder(1):
            pass
        assert not list(deep.iterdir())

    def test_a_temporary_folder_too_long_for_a_socket_is_left_for_a_short_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deep = tmp_path / ("d" * 100)
        deep.mkdir()
        monkeypatch.delenv("MLLESS_CHANNEL_DIR", raising=False)
        monkeypatch.setattr(embedded_store, "_SHARED_MEMORY", tmp_path / "none")
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        with job_folder(1) as folder:
            assert folder.parent == Path("/tmp")
            assert not list(deep.iterdir())
            EmbeddedHub(folder).close()

    def test_what_the_dead_have_left_is_removed_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLLESS_CHANNEL_DIR", str(tmp_path))
        code = (
            "import os, signal\n"
            "from mlless.channels.embedded_store import job_folder\n"
            "with job_folder(1) as folder:\n"
            "    print(folder, flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        left, foreign = Path(killed.stdout.strip()), tmp_path / "mlless-of-someone-else"
        assert left.is_dir()
        foreign.mkdir()
        with job_folder(1) as living:
            assert not left.exists()
            sweep(tmp_path)
            assert living.is_dir()
        assert list(tmp_path.iterdir()) == [foreign]

    def test_a_place_that_cannot_be_written_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLLESS_CHANNEL_DIR", "/does/not/exist")
        with pytest.raises(ChannelError, match="MLLESS_CHANNEL_DIR"), job_folder(1):
            pass

    def test_shared_memory_is_taken_only_if_there_is_room(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLLESS_CHANNEL_DIR", raising=False)
        monkeypatch.setattr(embedded_store, "_SHARED_MEMORY", str(tmp_path))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        monkeypatch.setattr(embedded_store, "_PATH_LIMIT", 10_000)
        with job_folder(1000) as roomy, job_folder(1001) as crowded:
            assert roomy.parent == tmp_path
            assert crowded.parent == Path(tempfile.gettempdir())


class TestStore:
    def test_no_room_says_so_and_leaves_nothing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "rename", full)
        with pytest.raises(ChannelError, match=r"no room for 1,005 bytes.*shm-size"):
            EmbeddedStore(folder).put("key", [bytes(1000), bytes(5)])
        assert not list(folder.iterdir())

    def test_the_file_of_a_deleted_value_serves_the_next_one(self, folder: Path) -> None:
        store = EmbeddedStore(folder)
        store.put("update/1/0.0", [b"a longer value"])
        number = next(folder.iterdir()).stat().st_ino
        store.delete(["update/1/0.0"])
        with pytest.raises(MissingUpdate):
            store.get(["update/1/0.0"])
        store.put("update/3/0.0", [b"short"])
        assert store.get(["update/3/0.0"]) == [b"short"]
        assert [one.stat().st_ino for one in folder.iterdir()] == [number]

    def test_large_files_are_not_set_aside(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(embedded_store, "_SPARE", 10)
        store = EmbeddedStore(folder)
        store.put("best/1/0.0", [bytes(11)])
        store.delete(["best/1/0.0"])
        assert not list(folder.iterdir())

    def test_a_reader_never_sees_the_value_that_took_over_the_file(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = EmbeddedStore(folder)
        store.put("update/1/0.0", [b"old"])
        read = embedded_store.read_numbered

        def slow(path: str) -> tuple[bytes, int]:
            monkeypatch.undo()
            store.delete(["update/1/0.0"])
            store.put("update/3/0.0", [b"new"])
            return read(f"{folder}/key.update%2F3%2F0.0")  # the file that was opened is this one by now

        monkeypatch.setattr(embedded_store, "read_numbered", slow)
        with pytest.raises(MissingUpdate):
            store.get(["update/1/0.0"])

    def test_files_set_aside_make_room(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = EmbeddedStore(folder)
        store.put("update/1/0.0", [b"old"])
        store.delete(["update/1/0.0"])
        write = os.write

        def crowded(file: int, data: memoryview) -> int:
            if list(folder.glob("spare.*")):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(file, data)

        monkeypatch.setattr(os, "write", crowded)
        store.put("update/1/1.0", [b"new"])
        assert store.get(["update/1/1.0"]) == [b"new"]

    def test_a_folder_that_is_gone_is_an_error(self, folder: Path) -> None:
        store = EmbeddedStore(folder)
        store.destroy()
        with pytest.raises(ChannelError, match="cannot write"):
            store.put("key", [b"x"])

    def test_keys_that_look_alike_are_kept_apart(self, folder: Path) -> None:
        store = EmbeddedStore(folder)
        keys = ["a/b", "a~b", "a%2Fb", "bus"]
        for key in keys:
            store.put(key, [key.encode()])
        assert store.get(keys) == [key.encode() for key in keys]
        assert not (folder / "bus").exists()

    def test_nothing_is_written_outside_of_the_folder(self, folder: Path) -> None:
        inner = folder / "inner"
        inner.mkdir()
        store = EmbeddedStore(inner)
        for key in ("../outside", "/tmp/mlless-outside", "a/../../b"):
            store.put(key, [b"x"])
            assert bytes(store.get([key])[0]) == b"x"
        assert list(folder.iterdir()) == [inner]
        assert not Path("/tmp/mlless-outside").exists()
