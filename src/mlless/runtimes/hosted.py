"""A runtime whose functions are held by a process of their own, the *host*.

Requests go to its standard input and words come from its standard output, a line each (``wire.py``).
When its input closes, because the runtime was stopped or because this process has died, the host
ends what still runs, tidies up and exits. So whatever happens here, nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mlless.errors import DeadlineExceeded, JobError, warn
from mlless.messages import FunctionId
from mlless.runtimes.ports import Ended
from mlless.runtimes.wire import Answer, Ready, Refused, Start, Word, encode

_EXIT_DEADLINE = 60.0
# The host finds this very package, also where a user's program has put it on its path by itself; and
# -P keeps the working directory off the path, for a random.py may lie in it.
_PACKAGES = str(Path(__file__).parents[2])
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); import mlless, mlless.runtimes; "
    "sys.path.append(sys.path.pop(0)); "
    "import importlib; importlib.import_module(sys.argv[2]).main(*sys.argv[3:])"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that calls the ``main`` of a module of this very package, with these arguments."""
    return [sys.executable, "-P", "-c", _BOOT, _PACKAGES, module, *arguments]


class HostedRuntime:
    """Starts the module ``host`` as a process, whose ``main`` gets the arguments."""

    START_DEADLINE = 60.0  # seconds until the host has to have started what it was told to

    def __init__(self, host: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._host = subprocess.Popen(
            module_command(host, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # a Ctrl-C in the terminal is for the driver alone
        )
        assert self._host.stdin is not None
        assert self._host.stdout is not None
        self._stdin, self._stdout = self._host.stdin, self._host.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        os.set_blocking(self._stdin.fileno(), False)
        self._buffer = b""
        self._running: set[FunctionId] = set()
        self._ended: list[Ended] = []
        self._answer: Answer | None = None
        self._stopped = False

    def start(self, functions: Mapping[FunctionId, bytes]) -> None:
        """Hand the functions to the host, and wait until it has started them; the error if it refuses."""
        self._say([Start(*who, payload.decode()) for who, payload in functions.items()])
        self._running |= set(functions)
        try:
            self._await_answer("the functions were not started", self.START_DEADLINE)
        except BaseException:
            self._running -= set(functions)
            raise

    def ended(self) -> list[Ended]:
        """Return the ends the host has told; JobError if the host itself is gone."""
        self._read(0.0)
        return self._take()

    def stop(self, grace: float) -> list[Ended]:
        """Wait, then close the host's input, on which it ends what is left and exits."""
        if self._stopped:
            return []
        self._stopped = True
        deadline = time.monotonic() + grace
        try:
            while self._running and time.monotonic() < deadline:
                self._read(deadline - time.monotonic())
        except JobError:
            pass  # the host is gone and so are its functions
        finally:
            with contextlib.suppress(BrokenPipeError):  # what it has not read is of no use any more
                self._stdin.close()
        try:
            self._hear_out(time.monotonic() + _EXIT_DEADLINE)
        finally:
            self._selector.close()
            self._stdout.close()
            self._running.clear()
        if isinstance(self._answer, Refused):  # the last word of a host that could not tidy up
            warn(str(self._answer.error()), RuntimeWarning)
        return self._take()

    def _hear_out(self, deadline: float) -> None:
        """Read what the host has to tell until it exits; to wait without reading could be for ever."""
        try:
            while self._selector.select(left := max(deadline - time.monotonic(), 0.0)):
                if not (data := os.read(self._stdout.fileno(), 1 << 16)):
                    break
                self._parse(data)
            self._host.wait(left)
        except subprocess.TimeoutExpired as error:
            self._host.kill()
            self._host.wait()
            raise DeadlineExceeded("the worker processes did not end") from error

    def _say(self, word: object) -> None:
        """Write a line, and read meanwhile: a host with much to tell takes no orders until it has told it."""
        deadline = time.monotonic() + self.START_DEADLINE
        left = memoryview(encode(word))
        either = select.poll()
        either.register(self._stdin, select.POLLOUT)
        either.register(self._stdout, select.POLLIN)
        while left:
            try:
                left = left[os.write(self._stdin.fileno(), left) :]
            except BlockingIOError:
                if not either.poll(max(deadline - time.monotonic(), 0.0) * 1000):
                    raise DeadlineExceeded("the process that starts workers takes no orders") from None
                self._read(0.0)
            except OSError as error:
                found = "the process that starts them has died"
                raise JobError("cannot start workers", found=found) from error

    def _await_answer(self, what: str, seconds: float) -> Ready:
        """Return the answer to the last request; its error if it was refused."""
        deadline = time.monotonic() + seconds
        while self._answer is None:
            if time.monotonic() >= deadline:
                raise DeadlineExceeded(f"{what}: not within {seconds:g} s")
            self._read(deadline - time.monotonic(), expecting=True)
        answer, self._answer = self._answer, None
        if isinstance(answer, Refused):
            raise answer.error()
        return answer

    def _take(self) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def _read(self, timeout: float, expecting: bool = False) -> None:
        if not self._selector.select(timeout):
            return
        data = os.read(self._stdout.fileno(), 1 << 16)
        if not data and (self._running or expecting):
            code = self._host.wait(_EXIT_DEADLINE)
            raise JobError("the process that starts workers has died", found=f"exit code {code}")
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            word: Word = msgspec.json.decode(line, type=Word)
            if isinstance(word, Ended):
                self._running.discard((word.worker, word.generation))
                self._ended.append(word)
            else:
                self._answer = word
