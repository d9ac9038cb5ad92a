"""Work beside a job's steps: in a thread, so that no step waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class BackgroundRunner(Generic[Result]):
    """Does one piece of work at a time in a thread, which does not outlive the process."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._results: list[Result] = []
        self._errors: list[BaseException] = []

    def start(self, work: Callable[[], Result]) -> None:
        """Begin; nothing else may be under way."""
        assert self._thread is None, "one thing after the other"
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def result(self) -> Result | None:
        """Return what came of it, once; None while it is under way. What it raised is raised here."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        if self._errors:
            raise self._errors.pop()
        return self._results.pop()

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._results.append(work())
        except BaseException as error:  # whoever asks for the result is to see it
            self._errors.append(error)
