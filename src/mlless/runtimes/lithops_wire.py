"""What the process that holds Lithops is told first."""

from __future__ import annotations

import msgspec


class Wanted(msgspec.Struct, frozen=True):
    """The functions' entry point, what they may use, and their environment."""

    entry: str
    memory: int | None
    time_limit: int | None
    environment: dict[str, str]
