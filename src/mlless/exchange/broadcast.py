"""Pattern of movement: everyone publishes to the store and merges everyone else's update."""

from __future__ import annotations

from collections.abc import Sequence

from mlless.channels.ports import KeyValueStore
from mlless.exchange import codec
from mlless.exchange.update import Update, entries
from mlless.job import Compression, MergeRule
from mlless.keys import update_key
from mlless.messages import FunctionId
from mlless.replica import Replica


class Broadcast:
    """One worker's publishing and merging of updates."""

    def __init__(
        self,
        store: KeyValueStore,
        replica: Replica,
        compression: Compression,
        me: FunctionId,
    ) -> None:
        self._store = store
        self._replica = replica
        self._compression = compression
        self._me = me
        self._own = memoryview(b"")

    def encode(self, update: Update) -> list[bytes | memoryview]:
        """Return the update's bytes, or nothing if it changes nothing.

        ``merge`` takes them as one's own, without reading them from the store.
        """
        if not entries(update):
            return []
        self._own = codec.pack(update, self._compression)
        return [codec.seal(self._own, self._compression)]

    def publish(self, step: int, chunks: Sequence[bytes | memoryview]) -> None:
        """Store an encoded update; when this returns, everyone can read it."""
        self._store.put(update_key(step, self._me), chunks)

    def merge(self, step: int, published: Sequence[FunctionId], rule: MergeRule, members: int) -> int:
        """Merge the step's updates in order of worker id, one's own among them; return the bytes read.

        One round trip. MissingUpdate or CodecError name the key, and nothing is merged then.
        """
        keys = {who: update_key(step, who) for who in published}
        peers = [key for who, key in keys.items() if who != self._me]
        values = dict(zip(peers, self._store.get(peers) if peers else [], strict=True))
        updates = {
            key: codec.opened(values[key], self._replica.shapes, key) if key in values else self._own
            for key in keys.values()
        }
        self._replica.merge(updates, rule, members)
        return sum(len(value) for value in values.values())
