"""Who is shown how far a work on data has come."""

from __future__ import annotations

from collections.abc import Callable

ShowProgress = Callable[[float | None, str], None]
"""Is called with the share that is done, None where that is not known, and with what is done just now."""


def unseen(share: float | None, doing: str) -> None:
    """Show nothing."""
