"""Functions for the contract of a runtime to start: each does one thing that a worker might do.

Their payload is a ``Task``; what they have to say they write to files of its folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from mlless.errors import DatasetError
from mlless.memory import MB, peak_memory

DEADLINE = 60.0  # seconds after which a function that waits gives up


class Task(msgspec.Struct, frozen=True):
    """Who a function is, where it leaves its word; how many ``meet`` waits for, or MB ``swell`` takes."""

    folder: str
    name: str
    all: int = 1
    text: str = ""


def meet(payload: bytes) -> None:
    """Leave the payload in a file, and wait until all functions have done so."""
    task = _leave(payload)
    folder = Path(task.folder)
    _wait(lambda: len(list(folder.glob("*.told"))) >= task.all, f"{task.all} functions")


def wait(payload: bytes) -> None:
    """Leave the process id in a file, and wait for one called ``go``."""
    task = _leave(payload)
    _write(Path(task.folder) / f"{task.name}.pid", str(os.getpid()).encode())
    _wait((Path(task.folder) / "go").exists, "the word to go")


def swell(payload: bytes) -> None:
    """Take as many MB as it is told, let go of them, leave its peak in a file, and wait for ``go``."""
    task = _leave(payload)
    took = bytearray(b"x") * (task.all * MB)
    del took
    _write(Path(task.folder) / f"{task.name}.peak", str(peak_memory()).encode())
    _wait((Path(task.folder) / "go").exists, "the word to go")


def fail(payload: bytes) -> None:
    """Raise an error with an exit code of its own."""
    raise DatasetError(f"no luck for {_leave(payload).name}")


def crash(payload: bytes) -> None:
    """Raise an error of Python's."""
    raise ZeroDivisionError(_leave(payload).name)


def _leave(payload: bytes) -> Task:
    task = msgspec.json.decode(payload, type=Task)
    _write(Path(task.folder) / f"{task.name}.told", payload)
    return task


def _write(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".draft")
    draft.write_bytes(data)
    draft.replace(path)


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {DEADLINE} s")
        time.sleep(0.02)
