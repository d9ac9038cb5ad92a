"""What to do about a server that this machine does not have."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from typing import NoReturn

import pytest


def missing(what: str, cure: str) -> NoReturn:
    """Skip the test that needs ``what``; where MLLESS_TEST_ALL is set, as in CI, fail it."""
    told = f"{what} is not on this machine: {cure}"
    if os.environ.get("MLLESS_TEST_ALL"):
        pytest.fail(told)
    pytest.skip(told)


def free_port() -> int:
    """Return a port of this machine that no one listens on.

    It is below those that systems give to outgoing connections, which could take it before the server does.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
