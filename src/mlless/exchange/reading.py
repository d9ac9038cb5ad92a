"""Reading what others have published: in one round trip, or a few at a time where that is too large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from mlless.channels.ports import Bytes, KeyValueStore
from mlless.exchange import codec
from mlless.exchange.update import Update
from mlless.job import Compression, MergeRule
from mlless.kernels.arrays import Ids
from mlless.replica import Replica, Summing

_AT_ONCE = 1 << 24  # bytes of updates that are held and taken apart together

_Batch = tuple[Sequence[str], dict[str, Bytes]]  # keys, and under those of others what was read


class Reader:
    """Reads packed updates for one replica. Its ``own`` ones, by key, are not read from the store."""

    def __init__(self, store: KeyValueStore, replica: Replica) -> None:
        self._store, self._replica = store, replica
        self.own: dict[str, Bytes] = {}

    def sealed(self, updates: Mapping[str, Update], compression: Compression) -> dict[str, Bytes]:
        """Return updates ready to be stored, by key; they are one's own from now on."""
        packed = {key: codec.pack(update, compression) for key, update in updates.items()}
        self.own |= packed
        return {key: codec.seal(data, compression) for key, data in packed.items()}

    def merge(self, keys: Sequence[str], rule: MergeRule, members: int) -> int:
        """Merge the updates under the keys in this order; return the bytes read.

        One round trip, unless the updates are likely to be too large for that, which is known by one's own:
        then they are read and summed a few at a time. MissingUpdate or CodecError name the key, and nothing
        is merged then.
        """
        found, size = self._gathered(keys, rule, members)
        if isinstance(found, Summing):
            found.merge()
        else:
            self._replica.merge(found, rule, members)
        return size

    def _gathered(
        self, keys: Sequence[str], rule: MergeRule, members: int
    ) -> tuple[dict[str, Bytes] | Summing, int]:
        """Return the updates under the keys, or their sum where they are too large; and the bytes read."""
        batches = self._batches(keys)
        some, values = next(batches, ([], {}))
        size = sum(map(len, values.values()))
        if len(some) == len(keys) and size <= _AT_ONCE:
            return {key: self._opened(key, values) for key in some}, size
        summing = Summing(self._replica, rule, members)
        return summing, self._add(summing, chain([(some, values)], batches))

    def sum(
        self, keys: Sequence[str], rule: MergeRule, members: int, rows: Sequence[Ids]
    ) -> tuple[list[tuple[int, float]], int]:
        """Add the sum of the updates to what is kept; return as ``Replica.sum``, and the bytes read."""
        found, size = self._gathered(keys, rule, members)
        if not isinstance(found, Summing):
            return self._replica.sum(found, rule, members, rows), size
        return found.keep(rows), size

    def _batches(self, keys: Sequence[str]) -> Iterator[_Batch]:
        at_once = max(1, _AT_ONCE // max(map(len, self.own.values()), default=1))
        for begin in range(0, len(keys), at_once):
            some = keys[begin : begin + at_once]
            peers = [key for key in some if key not in self.own]
            yield some, dict(zip(peers, self._store.get(peers) if peers else [], strict=True))

    def _add(self, summing: Summing, batches: Iterable[_Batch]) -> int:
        size = 0
        for some, values in batches:
            size += sum(map(len, values.values()))
            for key in some:
                summing.add(key, self._opened(key, values))
        return size

    def _opened(self, key: str, values: dict[str, Bytes]) -> Bytes:
        """Return a packed update, taken out of ``values`` unless it is one's own."""
        return codec.opened(values.pop(key), self._replica.shapes, key) if key in values else self.own[key]
