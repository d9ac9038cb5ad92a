"""What a function of another machine calls first: the one thing of ours that Lithops refers to.

It must import fast, and nothing but what a worker needs.
"""

from __future__ import annotations

import time
import traceback

import msgspec

from mlless.errors import hidden
from mlless.memory import peak_memory
from mlless.runtimes.wire import function_of

# Lithops hands back up to 8 KB with a function's status; what is longer costs a request to its storage.
_LONGEST = 6000


began = 0.0  # on the monotonic clock, when the call of this process began: before its entry was imported


class Returned(msgspec.Struct, frozen=True):
    """How a function ended: exit code, seconds of CPU and in all, and if it failed its own traceback.

    ``peak`` is the most memory its process has had, in bytes. A cloud may have used the process before.
    """

    code: int
    cpu_seconds: float
    seconds: float
    peak: int
    cause: str = ""


def run(entry: str, payload: str) -> str:
    """Call the function with the dotted name ``entry``; return a ``Returned`` as JSON, whatever happens."""
    global began
    began, start = time.monotonic(), time.process_time()
    code, cause = 0, ""
    try:
        function_of(entry)(payload.encode())
    except BaseException as error:  # a worker that exits has failed too, and the driver is to be told how
        code = getattr(error, "exit_code", 1)
        cause = hidden("".join(traceback.format_exception(error)))[-_LONGEST:]
    returned = Returned(code, time.process_time() - start, time.monotonic() - began, peak_memory(), cause)
    return msgspec.json.encode(returned).decode()
