"""Output of a process: warnings in one line, and streams that no one can read any more, or that find no room.

The latter must not end a training.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast


class _Lasting:
    """A text stream that falls silent at its first error; for the rest it is the ``stream``."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self.failed = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, as long as that is possible."""
        if not self.failed:
            try:
                return self._stream.write(text)
            except OSError:
                self.failed = True
        return len(text)

    def flush(self) -> None:
        """Flush, as long as that is possible."""
        if not self.failed:
            try:
                self._stream.flush()
            except OSError:
                self.failed = True


def silenced(stream: IO[str]) -> IO[str]:
    """Return the stream as one that falls silent where it cannot be written to any more."""
    return cast("IO[str]", _Lasting(stream))


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let standard output and standard error of this process fall silent where they cannot be written to."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr") if getattr(sys, name) is not None}
    lasting = {name: _Lasting(stream) for name, stream in before.items()}
    for name, stream in lasting.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
            lasting[name].flush()
            if lasting[name].failed:  # Python would complain of what is left in its buffer when it exits
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def plain_warnings(tell: Callable[[str], object]) -> Iterator[None]:
    """Hand Python's warnings to ``tell`` as lines for a person, without the place in the code."""

    def show(message: Warning | str, *place: object, **more: object) -> None:
        """Tell a warning in a line."""
        tell(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
