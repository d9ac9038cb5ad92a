"""Work beside a job's steps."""

from __future__ import annotations

import threading

import pytest

from mlless.runtimes.background import BackgroundRunner


def awaited(runner: BackgroundRunner[int]) -> int | None:
    assert runner._thread is not None
    runner._thread.join(20)
    return runner.result()


def test_nobody_waits_for_the_result_and_it_is_given_once() -> None:
    runner: BackgroundRunner[int] = BackgroundRunner()
    go = threading.Event()
    assert runner.result() is None
    runner.start(lambda: 7 if go.wait(20) else 0)
    assert runner.result() is None
    go.set()
    assert awaited(runner) == 7
    assert runner.result() is None
    runner.start(lambda: 8)
    assert awaited(runner) == 8


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    runner: BackgroundRunner[int] = BackgroundRunner()
    runner.start(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        awaited(runner)
    assert runner.result() is None
