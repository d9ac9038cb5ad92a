"""Lithops on this machine keeps the contract of a runtime, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from integration.jobs import alive, children, eventually
from servers.redis import Server

from mlless.errors import JobError, UsageError
from mlless.runtimes import lithops, remote
from mlless.runtimes.lithops import LithopsRuntime
from mlless.runtimes.ports import Ended, Runtime
from mlless.testing.contracts import OpenRuntime, RuntimeContract
from mlless.testing.functions import Task


class TestLithops(RuntimeContract):
    ends_one_by_one = False

    @pytest.fixture
    def open_runtime(self, tmp_path: Path) -> Iterator[OpenRuntime]:
        with ExitStack() as stack:

            def opened(entry: str, *, time_limit: int | None = None) -> Runtime:
                runtime = LithopsRuntime(entry, None, time_limit, {})
                stack.callback(runtime.stop, 0.0)
                return runtime

            yield opened

    def test_a_failure_carries_the_functions_own_traceback(
        self, open_runtime: OpenRuntime, tmp_path: Path
    ) -> None:
        runtime = open_runtime("mlless.testing.functions:crash")
        runtime.start({(0, 0): task(tmp_path, 0)})
        ended = next_ended(runtime)
        assert ended.cause.splitlines()[-1] == "ZeroDivisionError: 0"
        assert "raise ZeroDivisionError(_leave(payload).name)" in ended.cause
        assert "jobrunner" not in ended.cause

    def test_a_function_that_finds_no_mlless_is_told(
        self, open_runtime: OpenRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Any interpreter without mlless, but with what Lithops itself needs, stands for such a runtime.
        python = tmp_path / "python"
        python.write_text(
            f"#!/bin/sh\nexec {sys.executable} -c \"import sys; sys.modules['mlless'] = None; "
            "import os, runpy; sys.argv.pop(0); sys.path[0] = os.path.dirname(sys.argv[0]); "
            'runpy.run_path(sys.argv[0], run_name=\'__main__\')" "$@"\n'
        )
        python.chmod(0o755)
        configure(monkeypatch, tmp_path, f"lithops:\n  backend: localhost\nlocalhost:\n  runtime: {python}\n")
        runtime = open_runtime("mlless.testing.functions:wait")
        runtime.start({(0, 0): task(tmp_path, 0)})
        ended = next_ended(runtime)
        assert ended.code == 1
        assert "ModuleNotFoundError: No module named 'mlless" in ended.cause
        assert "mlless function build" in ended.cause

    def test_lithops_ships_the_name_of_a_function_and_no_code(
        self, open_runtime: OpenRuntime, tmp_path: Path, temporary: Path
    ) -> None:
        runtime = open_runtime("mlless.testing.functions:wait")
        runtime.start({(0, 0): task(tmp_path, 0)})
        (stored,) = temporary.glob("mlless-lithops-*/lithops-*/storage/lithops.jobs/*/*.func.pickle")
        shipped = pickle.loads(stored.read_bytes())
        assert shipped["module_data"] == {}
        assert pickle.loads(shipped["func"]) is remote.run
        assert len(shipped["func"]) < 100
        (stored,) = temporary.glob("mlless-lithops-*/lithops-*/storage/lithops.jobs/*/aggdata.pickle")
        assert pickle.loads(stored.read_bytes()) == {
            "entry": "mlless.testing.functions:wait",
            "payload": task(tmp_path, 0).decode(),
        }

    def test_nothing_is_left(self, open_runtime: OpenRuntime, tmp_path: Path, temporary: Path) -> None:
        before = set(children(os.getpid()))
        runtime = open_runtime("mlless.testing.functions:wait")
        runtime.start({(n, 0): task(tmp_path, n) for n in range(3)})
        assert any(temporary.iterdir())
        runtime.stop(0.0)
        assert set(children(os.getpid())) == before
        assert not any(temporary.iterdir())

    def test_functions_of_a_killed_driver_end(self, tmp_path: Path, temporary: Path) -> None:
        code = (
            "import time\n"
            "from pathlib import Path\n"
            "from mlless.runtimes.lithops import LithopsRuntime\n"
            "runtime = LithopsRuntime('mlless.testing.functions:wait', None, None, {})\n"
            f"runtime.start({ {(n, 0): task(tmp_path, n) for n in range(2)} })\n"
            "time.sleep(600)\n"
        )
        driver = subprocess.Popen([sys.executable, "-c", code])
        try:
            files = [tmp_path / "0.pid", tmp_path / "1.pid"]
            eventually(lambda: all(file.exists() for file in files), "the functions start", within=120)
        finally:
            driver.kill()
            driver.wait()
        processes = [int(file.read_text()) for file in files]
        eventually(lambda: not any(map(alive, processes)), "the functions end", within=60)
        eventually(lambda: not any(temporary.iterdir()), "the files go", within=60)

    @pytest.mark.parametrize(
        ("number", "tidying", "found"),
        [(signal.SIGSTOP, 1.5, "not done within 1.5 s"), (signal.SIGKILL, 30.0, "ConnectionError")],
    )
    def test_what_cannot_be_removed_is_told(
        self,
        own_redis_server: Server,
        tmp_path: Path,
        temporary: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        tidying: float,
        found: str,
    ) -> None:
        """The storage hangs or is gone at the end: functions are ended all the same, and in time."""
        server = own_redis_server
        text = f"backend: localhost\n  storage: redis\nredis:\n  host: 127.0.0.1\n  port: {server.port}\n"
        configure(monkeypatch, tmp_path, f"lithops:\n  {text}")
        monkeypatch.setattr(lithops, "_TIDYING", tidying)
        runtime = LithopsRuntime("mlless.testing.functions:wait", None, None, {})
        runtime.start({(0, 0): task(tmp_path, 0)})
        eventually((tmp_path / "0.pid").exists, "the function starts", within=120)
        (key, *_) = server.client().keys("storage/lithops.jobs/*/*/*")
        os.kill(server.pid, number)
        try:
            with pytest.warns(RuntimeWarning) as warned:
                runtime.stop(0.0)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        (told,) = warned
        prefix, text = str(told.message).split(" in the bucket storage of redis: ")
        assert key.decode().startswith(f"storage/{prefix}-")
        assert f"not all is removed that Lithops has stored: found {found}" in text
        assert told.filename == __file__
        assert not alive(int((tmp_path / "0.pid").read_text()))
        assert not any(temporary.iterdir())


def test_without_lithops_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'mlless\[lithops\]'"):
        LithopsRuntime("mlless.launch:main", None, None, {})


@pytest.mark.parametrize(
    ("configuration", "memory", "message"),
    [
        ("", 512, "functions of this machine have no memory"),
        ("lithops:\n  backend: aws_ec2\n  storage: localhost\n", None, "configuration does not work|virtual"),
        ("lithops:\n  backend: nothing\n", None, "configuration does not work: found .*nothing"),
        ("lithops: [\n", None, "configuration does not work: found ParserError"),
    ],
)
def test_a_configuration_that_does_not_work_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    temporary: Path,
    configuration: str,
    memory: int | None,
    message: str,
) -> None:
    configure(monkeypatch, tmp_path, configuration)
    with pytest.raises((UsageError, JobError), match=message):
        LithopsRuntime("mlless.launch:main", memory, None, {})
    assert not any(temporary.iterdir())


def test_lithops_own_time_limit_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(monkeypatch, tmp_path, "lithops:\n  backend: localhost\n  execution_timeout: 77\n")
    runtime = LithopsRuntime("mlless.testing.functions:wait", None, None, {})
    try:
        assert runtime.time_limit == 77.0
    finally:
        runtime.stop(0.0)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of all that a test starts; no one's own configuration is found."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    configure(monkeypatch, tmp_path, "")
    return folder


def configure(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Let Lithops find this configuration."""
    (folder / "lithops.yaml").write_text(text)
    monkeypatch.setenv("LITHOPS_CONFIG_FILE", str(folder / "lithops.yaml"))


def task(folder: Path, name: int) -> bytes:
    return msgspec.json.encode(Task(str(folder), str(name)))


def next_ended(runtime: Runtime) -> Ended:
    ended: list[Ended] = []
    eventually(lambda: bool(ended.extend(runtime.ended()) or ended), "a function ends", within=120)
    (one,) = ended
    return one
