"""Pattern of movement: everyone publishes to the store and reads everyone else's update."""

from __future__ import annotations

from collections.abc import Sequence

from mlless.channels.ports import KeyValueStore
from mlless.errors import CodecError
from mlless.exchange import codec
from mlless.exchange.update import Update, entries
from mlless.job import Compression
from mlless.kernels.arrays import Decoded
from mlless.replica import TableShape


def update_key(step: int, worker: int, generation: int) -> str:
    """Return the key of a worker's update of a step."""
    return f"update/{step}/{worker}.{generation}"


class Broadcast:
    """One worker's publishing and collecting of updates."""

    def __init__(
        self,
        store: KeyValueStore,
        shapes: Sequence[TableShape],
        compression: Compression,
        worker: int,
        generation: int,
    ) -> None:
        self._store = store
        self._shapes = shapes
        self._compression = compression
        self._me = (worker, generation)

    def publish(self, step: int, chunks: Sequence[bytes | memoryview]) -> None:
        """Store an encoded update; when this returns, everyone can read it."""
        self._store.put(update_key(step, *self._me), chunks)

    def encode(self, update: Update) -> list[bytes | memoryview]:
        """Return the update's bytes, or nothing if it changes nothing."""
        return codec.encode(update, self._compression) if entries(update) else []

    def collect(
        self, step: int, published: Sequence[tuple[int, int]], own: Update
    ) -> tuple[list[list[Decoded]], int]:
        """Return the step's updates in order of worker id, one's own among them, and the bytes read.

        One round trip. MissingUpdate or CodecError name the key.
        """
        peers = [who for who in published if who != self._me]
        keys = [update_key(step, *who) for who in peers]
        values = self._store.get(keys) if keys else []
        updates = {}
        for who, key, value in zip(peers, keys, values, strict=True):
            try:
                updates[who] = codec.decode(value, self._shapes)
            except CodecError as error:
                raise CodecError(error.what, where=key, found=error.found, cure=error.cure) from error
        if self._me in published:
            updates[self._me] = codec.decoded(own)
        return [updates[who] for who in published], sum(len(value) for value in values)

    def discard(self, step: int) -> None:
        """Remove one's own update of a step that everyone has merged."""
        self._store.delete([update_key(step, *self._me)])
