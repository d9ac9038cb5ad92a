"""What came and went in a virtual world, as its supervisor saw it."""

from __future__ import annotations

from dataclasses import dataclass

from mlless.messages import FromWorker, FunctionId, ToWorker


@dataclass(frozen=True)
class Launched:
    """Functions were started."""

    functions: tuple[FunctionId, ...]


@dataclass(frozen=True)
class Dismissed:
    """The runtime was told to end functions."""

    functions: tuple[FunctionId, ...]


@dataclass(frozen=True)
class Heard:
    """The supervisor received a message."""

    message: FromWorker


@dataclass(frozen=True)
class Sent:
    """The supervisor sent a message to functions."""

    message: ToWorker
    functions: tuple[FunctionId, ...]


@dataclass(frozen=True)
class Emptied:
    """The store lost all that it had."""


@dataclass(frozen=True)
class Struck:
    """A function was killed, broken or stopped, or it is over for its time limit."""

    function: FunctionId
    limit: bool = False


Traced = Launched | Dismissed | Heard | Sent | Emptied | Struck
Trace = list[tuple[float, Traced]]  # and when, on the supervisor's clock
