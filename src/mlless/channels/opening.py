"""Which adapter serves which address.

A client is imported when an address asks for it, not before; the embedded adapters at once, so that a
zygote has loaded them before it forks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlless.channels.embedded_bus import EmbeddedHub, EmbeddedLink
from mlless.channels.embedded_store import EmbeddedStore
from mlless.channels.folder import Folder
from mlless.channels.ports import HeadStore, Hub, KeyValueStore, Link
from mlless.deployment import Addresses, Deployment, is_rabbitmq, is_redis
from mlless.locations import Place, Prefix, WebFile

if TYPE_CHECKING:
    from mlless.channels.remote_objects import RemoteObjects


def open_store(addresses: Addresses, expiry: float) -> KeyValueStore:
    """Return an access to the job's key-value store.

    Its keys expire after ``expiry`` seconds, or longer where servers may be away for long.
    """
    if is_redis(addresses.store[0]):
        from mlless.channels.redis_store import RedisStore

        return RedisStore(addresses.store, addresses.job, _expiry(addresses, expiry), addresses.patience)
    return EmbeddedStore(Path(addresses.store[0]))


def open_hub(addresses: Addresses, expiry: float) -> Hub:
    """Return the supervisor's end of the job's bus, which expires as the store does after its last use."""
    if is_redis(addresses.bus):
        from mlless.channels.redis_bus import RedisHub

        return RedisHub(addresses.bus, addresses.job, _expiry(addresses, expiry), addresses.patience)
    if is_rabbitmq(addresses.bus):
        from mlless.channels.rabbitmq_bus import RabbitHub

        return RabbitHub(addresses.bus, addresses.job, _expiry(addresses, expiry), addresses.patience)
    return EmbeddedHub(Path(addresses.bus))


def open_link(addresses: Addresses, worker: int, generation: int) -> Link:
    """Return a worker's end of the job's bus."""
    if is_redis(addresses.bus):
        from mlless.channels.redis_bus import RedisLink

        return RedisLink(addresses.bus, addresses.job, worker, generation, addresses.patience)
    if is_rabbitmq(addresses.bus):
        from mlless.channels.rabbitmq_bus import RabbitLink

        return RabbitLink(addresses.bus, addresses.job, worker, generation, addresses.patience)
    return EmbeddedLink(Path(addresses.bus))


def check_servers(deployment: Deployment) -> None:
    """Raise UsageError if a server would drop what a job needs; warn where one does not let us ask."""
    for address in sorted({*deployment.servers, deployment.meeting}):
        if is_redis(address):
            from mlless.channels.redis_health import check

            check(address)


def _expiry(addresses: Addresses, expiry: float) -> float:
    return max(expiry, 2 * addresses.patience)


def open_remote(place: Prefix | WebFile) -> RemoteObjects:
    """Return an access to what lies below a prefix, or to a file of a web server."""
    from mlless.channels.remote_objects import RemoteObjects

    return RemoteObjects(place)


def open_objects(place: Place) -> HeadStore:
    """Return the object store of a data set or a run."""
    if isinstance(place, Prefix):
        return open_remote(place)
    return Folder(place.path)
