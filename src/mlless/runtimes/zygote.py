"""The process that worker processes are forked from: NumPy and the worker are loaded once.

Reads lines from its standard input. On a list of Start it forks, says that it is Ready, and later writes an
Ended a line to its standard output. On an End it kills those functions. Functions end at their limits, too.
When its input closes, because the driver has closed it or has died, it kills what still runs, removes FOLDER,
if one is named, and exits. Workers start from here, never from the user's main module: a notebook, a REPL and
a script without a main guard all work.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from mlless.memory import peak_of
from mlless.runtimes.limits import Limits
from mlless.runtimes.ports import Ended, debugging
from mlless.runtimes.wire import End, Ready, Refused, Start, encode, function_of

_GRACE = 1.0  # seconds between asking and killing


def main(entry: str, folder: str, told: str) -> None:
    """Serve until standard input closes."""
    limits = msgspec.json.decode(told, type=Limits)
    function = function_of(entry)
    gc.freeze()  # what is loaded stays shared between the forks
    refusal = limits.refusal()
    commands, output = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a function prints must not end up among the exits

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, tuple[Start, float]] = {}  # by process: what was started, and when
    buffer = b""
    while True:
        ready, _, _ = select.select([commands, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            _reap(running, output, limits)
        if commands in ready:
            data = os.read(commands, 1 << 20)
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                word = msgspec.json.decode(line, type=list[Start] | End)
                if isinstance(word, End):
                    _end(word, running)
                    continue
                if refusal is not None:
                    os.write(output, encode(Refused.of(refusal)))
                    continue
                for start in word:
                    since = time.monotonic()
                    pid = os.fork()
                    if pid == 0:
                        _become(function, start, limits, [commands, output, wake_read, wake_write])
                    running[pid] = start, since
                os.write(output, encode(Ready()))
    _kill(running, output, limits)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _become(function: Callable[[bytes], object], start: Start, limits: Limits, inherited: list[int]) -> None:
    """Run the function in a fresh fork and exit."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in inherited:
        os.close(descriptor)
    _offer_memory()
    code = 1
    try:
        limits.impose()
        function(start.payload.encode())
        code = 0
    except BaseException as error:  # this process must end here, whatever happened
        if debugging():  # the supervisor has been told already
            traceback.print_exc()
        code = getattr(error, "exit_code", 1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _offer_memory() -> None:
    """Let this process be the one that is ended where memory runs out, rather than the driver."""
    with contextlib.suppress(OSError):  # only Linux knows of it
        Path("/proc/self/oom_score_adj").write_text("500")


def _end(word: End, running: dict[int, tuple[Start, float]]) -> None:
    """Kill the functions that ``word`` names; who is over but not yet reaped keeps its process id."""
    for pid, (start, _) in running.items():
        if (start.worker, start.generation) in word.functions:
            os.kill(pid, signal.SIGKILL)


def _reap(running: dict[int, tuple[Start, float]], output: int, limits: Limits) -> None:
    while running:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return
        start, since = running.pop(pid)
        code, peak = os.waitstatus_to_exitcode(status), peak_of(usage)
        ended = Ended(
            start.worker,
            start.generation,
            code,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            cause=limits.cause(code, peak),
            seconds=time.monotonic() - since,
            peak=peak,
        )
        try:
            os.write(output, encode(ended))
        except OSError:
            return  # no one listens any more


def _kill(running: dict[int, tuple[Start, float]], output: int, limits: Limits) -> None:
    for pid in running:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    while running and time.monotonic() < deadline:
        _reap(running, output, limits)
        time.sleep(0.01)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    while running:
        _reap(running, output, limits)
        time.sleep(0.01)
