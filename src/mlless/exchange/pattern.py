"""Patterns of movement: how what workers publish in a step comes to all of them.

That is apart from when they wait for one another, and from what they publish.
"""

from __future__ import annotations

from typing import Protocol

from mlless.channels.ports import Bytes
from mlless.exchange.broadcast import Broadcast
from mlless.exchange.reading import Reader
from mlless.exchange.reduction import Reduction
from mlless.exchange.update import Update
from mlless.job import JobSpec
from mlless.messages import Commit, FunctionId
from mlless.models import tables_of


class Pattern(Protocol):
    """One function's publishing and merging of updates."""

    def encode(self, step: int, update: Update) -> dict[str, Bytes]:
        """Return what is to be stored of an update, by key; nothing if it changes nothing.

        ``merge`` takes it as one's own, without reading it from the store.
        """
        ...

    def merge(self, commit: Commit, members: int) -> int:
        """Merge what so many members have published in a step that is closed; return the bytes read.

        MissingUpdate or CodecError name the key, and nothing is merged then.
        """
        ...


def open_pattern(spec: JobSpec, reader: Reader, me: FunctionId) -> Pattern:
    """Return the pattern that a job names, as the function ``me`` takes part in it."""
    if not spec.shards:
        return Broadcast(reader, spec.sync, me)
    return Reduction(reader, tables_of(spec), spec.sync, spec.shards, me)
