"""Runtime: functions are processes of this machine, forked from a zygote that has NumPy loaded."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlless.errors import DeadlineExceeded, JobError
from mlless.runtimes.ports import Ended, FunctionId
from mlless.runtimes.zygote import Start

# One thread a worker: P workers share the cores, and a NumPy that starts more threads only gets in the way.
_ENVIRONMENT = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"], "1"
)
_EXIT_DEADLINE = 60.0
# The zygote finds this very package, also where a user's program has put it on its path by itself; and
# -P keeps the working directory off the path, for a random.py may lie in it.
_PACKAGES = str(Path(__file__).parents[2])
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); import mlless, mlless.runtimes; "
    "sys.path.append(sys.path.pop(0)); "
    "from mlless.runtimes.zygote import main; main(sys.argv[2], sys.argv[3])"
)


class ProcessRuntime:
    """Forks functions on request.

    ``cleanup`` is a folder the zygote removes if this process dies; ``environment`` holds variables
    for the functions, over which those of this process take precedence.
    """

    def __init__(self, entry: str, cleanup: Path | None, environment: Mapping[str, str]) -> None:
        self._zygote = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, _PACKAGES, entry, str(cleanup or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, **os.environ, **_ENVIRONMENT},
            start_new_session=True,  # a Ctrl-C in the terminal is for the driver alone
        )
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._stdin, self._stdout = self._zygote.stdin, self._zygote.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._buffer = b""
        self._running: set[FunctionId] = set()
        self._stopped = False

    @property
    def time_limit(self) -> None:
        """A process may take all the time it needs."""
        return None

    def start(self, functions: Mapping[FunctionId, bytes]) -> None:
        """Hand the functions to the zygote, which forks one process each."""
        lines = [
            msgspec.json.encode(Start(worker, generation, payload.decode())) + b"\n"
            for (worker, generation), payload in functions.items()
        ]
        try:
            self._stdin.write(b"".join(lines))
            self._stdin.flush()
        except OSError as error:
            raise JobError(
                "cannot start worker processes", found="the process that starts them has died"
            ) from error
        self._running |= set(functions)

    def ended(self) -> list[Ended]:
        """Return the exits the zygote has reported; JobError if the zygote itself is gone."""
        return self._read(0.0)

    def stop(self, grace: float) -> list[Ended]:
        """Wait, then close the zygote's input, on which it kills what is left and exits."""
        if self._stopped:
            return []
        self._stopped = True
        deadline, ended = time.monotonic() + grace, []
        try:
            while self._running and time.monotonic() < deadline:
                ended += self._read(deadline - time.monotonic())
        except JobError:
            pass  # the zygote is gone and so are its functions
        finally:
            with contextlib.suppress(BrokenPipeError):  # what it has not read is of no use any more
                self._stdin.close()
        try:
            self._zygote.wait(_EXIT_DEADLINE)
        except subprocess.TimeoutExpired as error:
            self._zygote.kill()
            raise DeadlineExceeded("the worker processes did not end") from error
        finally:
            rest = self._stdout.read()
            self._selector.close()
            self._stdout.close()
        return ended + self._parse(rest)

    def _read(self, timeout: float) -> list[Ended]:
        if not self._selector.select(timeout):
            return []
        data = os.read(self._stdout.fileno(), 1 << 16)
        if not data and self._running:
            raise JobError(
                "the process that starts workers has died", found=f"exit code {self._zygote.wait(1)}"
            )
        return self._parse(data)

    def _parse(self, data: bytes) -> list[Ended]:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        ended = [msgspec.json.decode(line, type=Ended) for line in lines]
        self._running -= {(one.worker, one.generation) for one in ended}
        return ended
