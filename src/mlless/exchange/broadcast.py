"""Pattern of movement: everyone reads everyone else's update, and adds for itself."""

from __future__ import annotations

from mlless.channels.ports import Bytes
from mlless.exchange.reading import Reader
from mlless.exchange.update import Update, entries
from mlless.job import Sync
from mlless.keys import update_key
from mlless.messages import Commit, FunctionId


class Broadcast:
    """One function's part in it."""

    def __init__(self, reader: Reader, sync: Sync, me: FunctionId) -> None:
        self._reader, self._sync, self._me = reader, sync, me

    def encode(self, step: int, update: Update) -> dict[str, Bytes]:
        """Return the update under the function's key."""
        if not entries(update):
            return {}
        return self._reader.sealed({update_key(step, self._me): update}, self._sync.compression)

    def merge(self, commit: Commit, members: int) -> int:
        """Merge the updates in order of worker id, one's own among them."""
        keys = [update_key(commit.step, who) for who in commit.published]
        size = self._reader.merge(keys, self._sync.merge, members)
        self._reader.own.pop(update_key(commit.step, self._me), None)
        return size
