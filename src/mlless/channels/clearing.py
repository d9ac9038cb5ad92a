"""Removes what a job that was killed has left where its functions met; no other job has its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlless.channels.embedded_store import remove_orphan
from mlless.deployment import Addresses, is_rabbitmq, is_redis
from mlless.errors import hidden


def clear(addresses: Addresses, workers: int) -> Iterator[str]:
    """Remove the folder, keys, queues and exchange of a job of so many workers; yield what there was.

    ChannelError if a server cannot be reached.
    """
    for address in dict.fromkeys((*addresses.store, addresses.bus)):
        if is_redis(address):
            from mlless.channels.redis_store import clear as clear_redis

            if found := clear_redis(address, addresses.job):
                yield f"{found:,} keys of {addresses.job} on {hidden(address)}"
        elif is_rabbitmq(address):
            from mlless.channels.rabbitmq_bus import clear as clear_rabbitmq

            if found := clear_rabbitmq(address, addresses.job, workers):
                yield f"{found:,} queues of {addresses.job} on {hidden(address)}"
        elif remove_orphan(Path(address)):
            yield f"the folder {address}"
