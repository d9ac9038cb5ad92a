"""A job's own server over a socket: who is answered, who is not, and that nobody waits for ever."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from mlless.channels import answering
from mlless.channels.answering import Asking, listen, serve
from mlless.channels.framing import framed
from mlless.errors import CodecError, DeadlineExceeded, Disconnected

TOKEN, LARGEST = b"a-token-of-a-job", 1 << 20


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """Where a server answers each request with twice the same; "fail" is no request of its."""
    listener = listen()
    ending, end = os.pipe()
    thread = threading.Thread(target=serve, args=(listener, TOKEN, LARGEST, lambda data: data * 2, ending))
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        os.close(end)
        thread.join(10.0)
        assert not thread.is_alive()
        os.close(ending)
        listener.close()


def asking(address: tuple[str, int], largest: int = 2 * LARGEST) -> closing[Asking]:
    return closing(Asking(address, TOKEN, largest=largest, timeout=5.0))


def answer(address: tuple[str, int], request: bytes) -> bytes:
    with asking(address) as way:
        return way.ask(request)


def test_it_listens_on_this_machine_alone(address: tuple[str, int]) -> None:
    assert address[0] == "127.0.0.1"


def test_several_are_answered_in_turns(address: tuple[str, int]) -> None:
    with asking(address) as one, asking(address) as other:
        for number in range(5):
            assert one.ask(b"one %d" % number) == b"one %d" % number * 2
            assert other.ask(b"") == b""
        large = os.urandom(LARGEST)  # more than a socket takes at once
        assert other.ask(large) == large * 2
        one.close()
        assert other.ask(b"still there") == b"still there" * 2


def test_a_token_and_requests_may_come_in_one_piece(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 5.0) as connection:
        connection.sendall(TOKEN + framed(b"ab") + framed(b"c"))
        expected = framed(b"abab") + framed(b"cc")
        with connection.makefile("rb") as answers:
            assert answers.read(len(expected)) == expected


@pytest.mark.parametrize("token", [b"a-token-of-a-jox", b"another", framed(b"0123456789ab")])
def test_a_stranger_is_not_answered(token: bytes, address: tuple[str, int]) -> None:
    with socket.create_connection(address, 5.0) as connection:
        connection.sendall(token + framed(b"a request") * 2)
        with contextlib.suppress(ConnectionResetError):  # it is closed with what was not read
            assert connection.recv(1) == b""
    assert answer(address, b"x") == b"xx"


def test_who_says_nothing_has_to_go(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_STRANGERS", 3)
    silent = [socket.create_connection(address, 5.0) for _ in range(5)]
    assert answer(address, b"x") == b"xx"
    assert [connection.recv(1) for connection in silent[:2]] == [b"", b""]
    for connection in silent:
        connection.close()


def test_a_request_that_is_too_long_ends_its_connection(address: tuple[str, int]) -> None:
    with pytest.raises(Disconnected, match="the job's own server is gone"):
        answer(address, b"x" * (LARGEST + 1))
    assert answer(address, b"x") == b"xx"


def test_an_answer_that_is_too_long_is_not_taken(address: tuple[str, int]) -> None:
    error = "message too long: expected at most 10 bytes, found 12"
    with asking(address, largest=10) as way, pytest.raises(CodecError, match=error):
        way.ask(b"123456")


def test_nobody_waits_for_ever() -> None:
    with listen() as silent:
        place = silent.getsockname()
        way = Asking(place, TOKEN, largest=10, timeout=0.05)
        with closing(way), pytest.raises(DeadlineExceeded, match=r"has not answered within 0\.05 s"):
            way.ask(b"x")
    with pytest.raises(Disconnected, match="the job's own server is not there"):
        Asking(place, TOKEN, largest=10, timeout=1.0)
