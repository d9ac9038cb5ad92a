"""Port: time. Roles ask a clock instead of the system, so that they also run on a virtual one."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Time as one role sees it."""

    def now(self) -> float:
        """Return seconds on a scale that never goes back."""
        ...

    def work(self, activity: str, units: int) -> None:
        """Say that ``units`` (rows, bytes; members of a ``step``) of an activity were just done.

        Nothing happens in real time, where the work itself took time; a virtual clock moves on by
        what its table of durations says.
        """
        ...

    def pause(self, seconds: float) -> None:
        """Let so many seconds go by: for who has to look again whether something is there."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return seconds since an arbitrary start."""
        return time.monotonic()

    def work(self, activity: str, units: int) -> None:
        """Do nothing: real work takes real time."""

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)
