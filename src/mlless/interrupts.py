"""Ctrl-C: the first asks a job to come to an orderly end, the second stops it at once.

So do SIGTERM, and SIGHUP: a terminal that is closed. Where SIGHUP is ignored, as by nohup, it stays so.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Whom the first signal asks. As long as that is nobody, it raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.ask: Callable[[], None] | None = None
        self._asked = False

    def request(self) -> bool:
        """Ask for an orderly end, as a thread may; return whether there is somebody to be asked."""
        if self.ask is None:
            return False
        self.ask()
        return True

    def handle(self, number: int, frame: object) -> None:
        """Deal with a signal."""
        if self.ask is not None:
            ask, self.ask, self._asked = self.ask, None, True
            ask()
            return
        if number == signal.SIGHUP and self._asked:
            return  # both the shell and the system tell of one terminal that is closed
        # What follows is the clean-up, whose waits are short. It is not to be interrupted again.
        for again in _SIGNALS:
            signal.signal(again, signal.SIG_IGN)
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Handle signals for the time of a job, clean-up included, if this is the main thread."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    numbers = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupts.handle) for number in numbers}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: it was not set from Python, and cannot be set back from here
                signal.signal(number, handler)
