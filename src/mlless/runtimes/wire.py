"""What a runtime and the process that holds its functions say to one another: a line of JSON each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec

from mlless.errors import JobError, MLLessError, UsageError
from mlless.messages import FunctionId
from mlless.runtimes.ports import Ended


class Start(msgspec.Struct, frozen=True):
    """Start a function. A line holds a list of those that are to run at the same time."""

    worker: int
    generation: int
    payload: str


class End(msgspec.Struct, frozen=True):
    """End these functions, as far as they run. There is no answer."""

    functions: list[FunctionId]


class Wanted(msgspec.Struct, frozen=True):
    """What Lithops' host is told first: the functions' entry point, what they may use, their environment."""

    entry: str
    memory: int | None
    time_limit: int | None
    environment: dict[str, str]


class Ready(msgspec.Struct, frozen=True, tag=True):
    """What was asked for is done; functions end after ``time_limit`` seconds, have ``memory`` MB, if set."""

    time_limit: float | None = None
    memory: int | None = None


class Refused(msgspec.Struct, frozen=True, tag=True):
    """What was asked for cannot be done: the parts of an error."""

    usage: bool
    what: str
    where: str | None = None
    expected: str | None = None
    found: str | None = None
    cure: str | None = None

    @classmethod
    def of(cls, error: MLLessError) -> Refused:
        """Return the parts of ``error``."""
        usage = isinstance(error, UsageError)
        return cls(usage, error.what, error.where, error.expected, error.found, error.cure)

    def error(self) -> MLLessError:
        """Return the error, to be raised."""
        kind = UsageError if self.usage else JobError
        return kind(self.what, where=self.where, expected=self.expected, found=self.found, cure=self.cure)


Answer = Ready | Refused
Word = Ready | Refused | Ended


def encode(word: object) -> bytes:
    """Return a line."""
    return msgspec.json.encode(word) + b"\n"


def function_of(entry: str) -> Callable[[bytes], Any]:
    """Return what a dotted name like ``package.module:name`` stands for."""
    module, name = entry.split(":")
    function: Callable[[bytes], Any] = getattr(importlib.import_module(module), name)
    return function
