"""What a function of another machine hands back."""

from __future__ import annotations

import msgspec

from mlless.runtimes.remote import Returned, run


def returned(entry: str, payload: str = "{}") -> Returned:
    return msgspec.json.decode(run(entry, payload), type=Returned)


def test_success_is_code_zero() -> None:
    assert returned("msgspec.json:decode").code == 0
    assert returned("msgspec.json:decode").cause == ""
    assert 0 <= returned("msgspec.json:decode").seconds < 10


def test_an_error_carries_its_code_and_traceback() -> None:
    failed = returned("mlless.launch:main", '{"protocol": 99, "version": "0.0.0"}')
    assert failed.code == 6
    assert failed.cause.rstrip().endswith("Install the same release of mlless on both sides")


def test_an_exit_is_a_failure() -> None:
    assert returned("sys:exit").code == 1


def test_passwords_are_hidden_and_long_tracebacks_cut() -> None:
    failed = returned("msgspec.json:decode", "redis://me:s3cret@host " + "x" * 10)
    assert "s3cret" not in failed.cause
    assert len(msgspec.json.encode(returned("importlib:import_module", "x" * 100_000))) < 8000
