"""The end of a host: it is heard out, and never waited for without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlless.errors import DeadlineExceeded
from mlless.runtimes import hosted
from mlless.runtimes.hosted import HostedRuntime
from mlless.runtimes.ports import Ended


def runtime(folder: Path, code: str) -> HostedRuntime:
    """Return a runtime whose host runs ``code`` once its input has closed."""
    body = "".join(f"    {line}\n" for line in code.splitlines())
    (folder / "some_host.py").write_text(f"import sys, time\ndef main():\n    sys.stdin.read()\n{body}")
    return HostedRuntime("some_host", [], {**os.environ, "PYTHONPATH": str(folder)})


def test_a_host_with_much_to_tell_is_heard_out(tmp_path: Path) -> None:
    """A pipe holds 64 KiB: who waits for the host's exit without reading waits for ever."""
    code = (
        "from mlless.runtimes.ports import Ended\n"
        "from mlless.runtimes.wire import encode\n"
        "for worker in range(48):\n"
        "    ended = Ended(worker, 0, 1, cpu_seconds=0.0, seconds=0.0, cause='x' * 20_000)\n"
        "    sys.stdout.buffer.write(encode(ended))"
    )
    ended = runtime(tmp_path, code).stop(0.0)
    assert [(one.worker, len(one.cause)) for one in ended] == [(worker, 20_000) for worker in range(48)]
    assert all(isinstance(one, Ended) for one in ended)


def test_a_host_with_much_to_tell_is_heard_before_it_takes_orders(tmp_path: Path) -> None:
    """Both pipes are full: who writes without reading waits for ever."""
    (tmp_path / "talking_host.py").write_text(
        "import sys\n"
        "from mlless.runtimes.ports import Ended\n"
        "from mlless.runtimes.wire import Ready, encode\n"
        "def main():\n"
        "    for worker in range(20):\n"
        "        sys.stdout.buffer.write(encode(Ended(worker, 0, 1, 0.0, 'x' * 20_000)))\n"
        "    sys.stdout.flush()\n"
        "    told = len(sys.stdin.readline())\n"
        "    sys.stdout.buffer.write(encode(Ready()))\n"
        "    sys.stdout.buffer.write(encode(Ended(20, 0, told, 0.0)))\n"
    )
    talking = HostedRuntime("talking_host", [], {**os.environ, "PYTHONPATH": str(tmp_path)})
    talking.start({(worker, 1): b"y" * 20_000 for worker in range(20)})
    *before, last = talking.stop(60.0)
    assert [one.worker for one in before] == list(range(20))
    assert last.code > 400_000


def test_a_host_that_takes_no_orders_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "_EXIT_DEADLINE", 0.5)
    (tmp_path / "deaf_host.py").write_text("import time\ndef main():\n    time.sleep(600)\n")
    deaf = HostedRuntime("deaf_host", [], {**os.environ, "PYTHONPATH": str(tmp_path)})
    monkeypatch.setattr(deaf, "START_DEADLINE", 0.5)
    with pytest.raises(DeadlineExceeded, match="takes no orders"):
        deaf.start({(0, 0): b"y" * 1_000_000})
    with pytest.raises(DeadlineExceeded, match="did not end"):
        deaf.stop(0.0)


def test_a_host_that_does_not_exit_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "_EXIT_DEADLINE", 0.5)
    stuck = runtime(tmp_path, "time.sleep(600)")
    with pytest.raises(DeadlineExceeded, match="did not end"):
        stuck.stop(0.0)
    assert stuck._host.returncode is not None
