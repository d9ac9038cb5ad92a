"""Runtime: functions in AWS Lambda's own runtime interface emulator, without Docker and without AWS.

An emulator serves one call at a time, so every function has one of its own, which runs
``python -m awslambdaric`` as the container of a function does. For tests and trials: it shows that
the worker runs as a plain handler, and how long it takes to start cold.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from mlless.errors import JobError
from mlless.messages import FunctionId
from mlless.runtimes.ports import ONE_THREAD, Ended

HANDLER = "mlless.launch.handler"
_START_DEADLINE = 60.0
_STOP_DEADLINE = 30.0
# The shell ends, and with it all it started, when this process closes its end of the pipe or dies.
_WATCH = '"$@" & read _; kill -TERM $!; wait $!; kill -9 0'


class EmulatorRuntime:
    """Starts an emulator for each function. ``binary`` is ``aws-lambda-rie``.

    ``path`` holds the packages of the function, instead of those of this process. ``time_limit`` is in
    seconds; AWS Lambda allows 900 at most.
    """

    def __init__(
        self,
        binary: Path,
        environment: Mapping[str, str],
        path: Path | None = None,
        *,
        time_limit: int = 900,
    ) -> None:
        self._binary, self.time_limit = binary, float(time_limit)
        self._environment = {
            **os.environ,
            **ONE_THREAD,
            **environment,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(time_limit),
            "PYTHONPATH": str(path) if path else os.pathsep.join(filter(None, sys.path)),
        }
        self._functions: list[_Function] = []

    @property
    def memory(self) -> None:
        """The emulator sets none."""
        return None

    def start(self, functions: Mapping[FunctionId, bytes]) -> None:
        """Start an emulator for each function and call it."""
        started = [_Function(who, payload) for who, payload in functions.items()]
        self._functions += started
        for function in started:
            function.start(self._binary, self._environment)

    def end(self, functions: Collection[FunctionId]) -> None:
        """Kill their emulators, and all that these have started."""
        for function in self._functions:
            if function.who in functions:
                os.killpg(function.watch.pid, signal.SIGKILL)

    def ended(self) -> list[Ended]:
        """Return the functions whose calls have been answered."""
        over = [function for function in self._functions if function.ended]
        self._functions = [function for function in self._functions if function not in over]
        for function in over:
            function.stop()
        return [function.ended for function in over if function.ended]

    def stop(self, grace: float) -> list[Ended]:
        """Wait for answers, then end all emulators."""
        deadline = time.monotonic() + grace
        for function in self._functions:
            function.caller.join(max(0.0, deadline - time.monotonic()))
        ended = self.ended()
        for function in self._functions:
            function.stop()
        self._functions = []
        return ended


class _Function:
    def __init__(self, who: FunctionId, payload: bytes) -> None:
        self.who, self.payload = who, payload
        self.ended: Ended | None = None
        self.caller = threading.Thread(target=self._call, daemon=True)

    def start(self, binary: Path, environment: Mapping[str, str]) -> None:
        """Start the emulator with the function in it."""
        self.port = _free_port()
        emulator = [str(binary), "--log-level", "error"]
        emulator += ["--runtime-interface-emulator-address", f"127.0.0.1:{self.port}"]
        emulator += ["--runtime-api-address", f"127.0.0.1:{_free_port()}"]
        self.watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "watch", *emulator, sys.executable, "-m", "awslambdaric", HANDLER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )
        self.caller.start()

    def stop(self) -> None:
        """End both."""
        assert self.watch.stdin
        self.watch.stdin.close()
        try:
            self.watch.wait(_STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(self.watch.pid, signal.SIGKILL)
            self.watch.wait()
        self.caller.join(_STOP_DEADLINE)

    def _call(self) -> None:
        try:
            code, cause = _answer(self._post())
        except (OSError, http.client.HTTPException, JobError) as error:
            code, cause = 1, f"the emulator broke off: {type(error).__name__}: {error}"
        self.ended = Ended(*self.who, code, 0.0, cause)

    def _post(self) -> bytes:
        deadline = time.monotonic() + _START_DEADLINE
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port)
                connection.connect()
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline or self.watch.poll() is not None:
                    raise
                time.sleep(0.005)
        try:
            connection.request("POST", "/2015-03-31/functions/function/invocations", self.payload)
            return connection.getresponse().read()
        finally:
            connection.close()


def _answer(answer: bytes) -> tuple[int, str]:
    """Return the exit code and the cause that an answer stands for."""
    try:
        told = json.loads(answer)
    except ValueError as error:
        raise JobError("no JSON came back", found=repr(answer[:200])) from error
    if "errorType" not in told:
        return 0, ""
    trace = "".join(told.get("stackTrace", ()))
    return 1, f"{trace}{told['errorType']}: {told.get('errorMessage', '')}"


def _free_port() -> int:
    """Return a port that no one listens on, below those that the system hands out by itself meanwhile."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
