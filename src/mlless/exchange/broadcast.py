"""Pattern of movement: everyone publishes to the store and merges everyone else's update."""

from __future__ import annotations

from collections.abc import Sequence

from mlless.channels.ports import Bytes, KeyValueStore
from mlless.exchange import codec
from mlless.exchange.update import Update, entries
from mlless.job import Compression, MergeRule
from mlless.keys import update_key
from mlless.messages import FunctionId
from mlless.replica import Replica, Summing

_AT_ONCE = 1 << 26  # bytes of updates that are held and taken apart together


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

        One round trip, unless the updates are likely to be too large for that, which is known by one's own:
        then they are read and summed a few at a time. MissingUpdate or CodecError name the key, and nothing
        is merged then.
        """
        keys = [update_key(step, who) for who in published]
        at_once = max(1, _AT_ONCE // max(1, len(self._own)))
        values = self._read(step, keys[:at_once])
        size = sum(map(len, values.values()))
        if len(keys) <= at_once and size <= _AT_ONCE:
            self._replica.merge({key: self._opened(key, values) for key in keys}, rule, members)
            return size
        summing = Summing(self._replica, rule, members)
        for begin in range(0, len(keys), at_once):
            some = keys[begin : begin + at_once]
            if begin:
                values = self._read(step, some)
                size += sum(map(len, values.values()))
            for key in some:
                summing.add(key, self._opened(key, values))
        summing.merge()
        return size

    def _read(self, step: int, keys: Sequence[str]) -> dict[str, Bytes]:
        """Return the updates of others among these, by key, sealed as they were published."""
        peers = [key for key in keys if key != update_key(step, self._me)]
        return dict(zip(peers, self._store.get(peers) if peers else [], strict=True))

    def _opened(self, key: str, values: dict[str, Bytes]) -> Bytes:
        """Return a packed update, taken out of ``values`` unless it is one's own."""
        return codec.opened(values.pop(key), self._replica.shapes, key) if key in values else self._own
