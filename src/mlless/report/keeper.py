"""Puts the newest model away while a job goes on: beside its steps, and never so often that it matters."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from typing import Protocol

from mlless.errors import MissingUpdate, hidden

SHARE = 0.02  # of the time so far that may go into it
APART = 1.0  # seconds from the start, and between two writes


class Finish(Protocol):
    """Waits for what is written beside the job."""

    def __call__(self, within: float, *, last: bool) -> None:
        """Wait at most so many seconds, with ``last`` also for what is still to be written."""
        ...


class Keeper:
    """Calls ``write``, which returns the step that it has put away, in a thread, one call after the other.

    What fails is told once, and tried again: it must not end a training.
    """

    def __init__(
        self,
        write: Callable[[], int],
        now: Callable[[], float] = time.monotonic,
        *,
        apart: float = APART,
        share: float = SHARE,
    ) -> None:
        self._write, self._now, self._apart, self._share = write, now, apart, share
        self._start = self._ended = now()
        self._spent = self._took = 0.0
        self._wanted = 0
        self._thread: threading.Thread | None = None
        self._told = False
        self.step = 0  # that of the model which has been put away, 0 for none

    def want(self, step: int) -> None:
        """Say that the model of ``step`` is there to be put away."""
        self._wanted = step

    def go_on(self) -> None:
        """Begin to write, if there is something new and time for it."""
        now = self._now()
        if now - self._ended < self._apart or self._spent + self._took > self._share * (now - self._start):
            return
        self._begin()

    def finish(self, within: float, *, last: bool) -> None:
        """Wait at most so many seconds for the write under way, and with ``last`` for what is still to do."""
        deadline = self._now() + within
        self._join(deadline)
        if last:
            self._begin()
            self._join(deadline)

    def _join(self, deadline: float) -> None:
        if self._thread is not None:
            self._thread.join(max(deadline - self._now(), 0.0))

    def _begin(self) -> None:
        if self._wanted != self.step and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._work, name="keep", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        begun = self._now()
        try:
            self.step = self._write()
        except MissingUpdate:
            pass  # a newer one has taken its place meanwhile
        except Exception as error:  # no thread hears of it, and a training does not end for it
            if not self._told:
                self._told = True
                text = f"a model could not be put into the run's place: {hidden(str(error))}"
                warnings.warn(text, RuntimeWarning, stacklevel=1)
        self._ended = self._now()
        self._took = self._ended - begun
        self._spent += self._took
